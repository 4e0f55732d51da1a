"""Prompts, their versions, labels and changes."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create ``prompts``, ``prompt_versions``, ``prompt_labels`` and ``prompt_changes``."""
    count = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    time = sa.DateTime(timezone=True)
    op.create_table(
        "prompts",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("newest", count, nullable=False),
        sa.Column("created", time, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name", name=op.f("pk_prompts")),
    )
    op.create_table(
        "prompt_versions",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("version", count, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("note", sa.String(500), nullable=False),
        sa.Column("who", sa.String(64), nullable=False),
        sa.Column("created", time, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name", "version", name=op.f("pk_prompt_versions")),
    )
    op.create_table(
        "prompt_labels",
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("label", sa.String(64), nullable=False),
        sa.Column("version", count, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "name", "label", name=op.f("pk_prompt_labels")),
    )
    op.create_table(
        "prompt_changes",
        sa.Column("id", count, autoincrement=True, nullable=False),
        sa.Column("at", time, nullable=False),
        sa.Column("who", sa.String(64), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("action", sa.String(16), nullable=False),
        sa.Column("label", sa.String(64), nullable=True),
        sa.Column("before", count, nullable=True),
        sa.Column("version", count, nullable=True),
        sa.Column("note", sa.String(500), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prompt_changes")),
    )
    op.create_index(op.f("ix_prompt_changes_tenant_name_label_id"), "prompt_changes", ["tenant", "name", "label", "id"])


def downgrade() -> None:
    """Drop them, with every prompt that was not exported."""
    for table in ("prompt_changes", "prompt_labels", "prompt_versions", "prompts"):
        op.drop_table(table)
