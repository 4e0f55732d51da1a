"""The index of runs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the table ``runs``."""
    count = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    time = sa.DateTime(timezone=True)
    op.create_table(
        "runs",
        sa.Column("id", sa.String(96), nullable=False),
        sa.Column("kind", sa.String(32), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("status", sa.String(16), nullable=False),
        sa.Column("has_directory", sa.Boolean(), nullable=False),
        sa.Column("created", time, nullable=False),
        sa.Column("started", time, nullable=True),
        sa.Column("finished", time, nullable=True),
        sa.Column("seed", count, nullable=False),
        sa.Column("parent", sa.String(96), nullable=True),
        sa.Column("config", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("attempt", count, nullable=False),
        sa.Column("stage", sa.String(200), nullable=True),
        sa.Column("done", count, nullable=True),
        sa.Column("total", count, nullable=True),
        sa.Column("pid", count, nullable=True),
        sa.Column("host", sa.String(300), nullable=True),
        sa.Column("heartbeat", time, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_runs")),
    )
    op.create_index(op.f("ix_runs_created"), "runs", ["created"])
    op.create_index(op.f("ix_runs_kind_created"), "runs", ["kind", "created"])
    op.create_index(op.f("ix_runs_parent"), "runs", ["parent"])
    op.create_index(op.f("ix_runs_status_created"), "runs", ["status", "created"])


def downgrade() -> None:
    """Drop it; the directories of the runs remain."""
    op.drop_table("runs")
