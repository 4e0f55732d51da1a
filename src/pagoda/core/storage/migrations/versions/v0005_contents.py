"""Prompts and answers, where they are asked to be kept."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create ``contents``."""
    count = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "contents",
        sa.Column("id", count, autoincrement=True, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("team", sa.String(200), nullable=False),
        sa.Column("user", sa.String(500), nullable=True),
        sa.Column("model", sa.String(500), nullable=False),
        sa.Column("route", sa.String(200), nullable=False),
        sa.Column("status", sa.String(64), nullable=False),
        sa.Column("prompt", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_contents")),
    )
    op.create_index(op.f("ix_contents_at"), "contents", ["at"])
    op.create_index(op.f("ix_contents_key_id_at"), "contents", ["key_id", "at"])
    op.create_index(op.f("ix_contents_user_at"), "contents", ["user", "at"])
