"""Collections, their documents and chunks."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables ``collections``, ``documents`` and ``chunks``."""
    count = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    time = sa.DateTime(timezone=True)
    op.create_table(
        "collections",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("model", sa.String(500), nullable=False),
        sa.Column("settings", sa.JSON().with_variant(JSONB(), "postgresql"), nullable=False),
        sa.Column("revision", count, nullable=False),
        sa.Column("created", time, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name", name=op.f("pk_collections")),
    )
    op.create_table(
        "documents",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("collection_id", sa.String(64), nullable=False),
        sa.Column("source", sa.String(4000), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("size", count, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("encoding", sa.String(16), nullable=False),
        sa.Column("title", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created", time, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_documents")),
    )
    op.create_index(op.f("ix_documents_collection_id_source"), "documents", ["collection_id", "source"], unique=True)
    op.create_table(
        "chunks",
        sa.Column("document_id", sa.String(64), nullable=False),
        sa.Column("start", count, nullable=False, autoincrement=False),
        sa.Column("end", count, nullable=False),
        sa.Column("heading", sa.Text(), nullable=False),
        sa.Column("vector", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("document_id", "start", name=op.f("pk_chunks")),
    )


def downgrade() -> None:
    """Drop them, with all that was taken in."""
    op.drop_table("chunks")
    op.drop_table("documents")
    op.drop_table("collections")
