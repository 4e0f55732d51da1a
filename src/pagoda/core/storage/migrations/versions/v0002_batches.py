"""Files and batches."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables ``files`` and ``batches``."""
    count = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    time = sa.DateTime(timezone=True)
    op.create_table(
        "files",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("filename", sa.String(500), nullable=False),
        sa.Column("purpose", sa.String(32), nullable=False),
        sa.Column("bytes", count, nullable=False),
        sa.Column("created", time, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_files")),
    )
    op.create_index(op.f("ix_files_created"), "files", ["created"])
    op.create_table(
        "batches",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("run_id", sa.String(96), nullable=False),
        sa.Column("endpoint", sa.String(64), nullable=False),
        sa.Column("input_file_id", sa.String(64), nullable=False),
        sa.Column("output_file_id", sa.String(64), nullable=False),
        sa.Column("error_file_id", sa.String(64), nullable=False),
        sa.Column("created", time, nullable=False),
        sa.Column("expires", time, nullable=False),
        sa.Column("cancelling", time, nullable=True),
        sa.Column("ended", sa.Boolean(), nullable=False),
        sa.Column("labels", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_batches")),
    )
    op.create_index(op.f("ix_batches_created"), "batches", ["created"])
    op.create_index(op.f("ix_batches_input_file_id"), "batches", ["input_file_id"])


def downgrade() -> None:
    """Drop them; the contents of files remain."""
    op.drop_table("batches")
    op.drop_table("files")
