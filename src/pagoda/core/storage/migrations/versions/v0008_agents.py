"""Runs of agents and their steps."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables ``agents`` and ``agent_steps``."""
    count = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    document = sa.JSON().with_variant(JSONB(), "postgresql")
    time = sa.DateTime(timezone=True)
    op.create_table(
        "agents",
        sa.Column("run_id", sa.String(96), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(400), nullable=True),
        sa.Column("heartbeat", time, nullable=True),
        sa.Column("cancelling", time, nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("limited", sa.String(300), nullable=True),
        sa.PrimaryKeyConstraint("run_id", name=op.f("pk_agents")),
    )
    op.create_index(op.f("ix_agents_tenant"), "agents", ["tenant"])
    op.create_table(
        "agent_steps",
        sa.Column("run_id", sa.String(96), nullable=False),
        sa.Column("place", count, nullable=False, autoincrement=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("input", document, nullable=False),
        sa.Column("output", document, nullable=True),
        sa.Column("begun", time, nullable=True),
        sa.Column("ended", time, nullable=True),
        sa.PrimaryKeyConstraint("run_id", "place", name=op.f("pk_agent_steps")),
    )


def downgrade() -> None:
    """Drop them, with all that agents did."""
    op.drop_table("agent_steps")
    op.drop_table("agents")
