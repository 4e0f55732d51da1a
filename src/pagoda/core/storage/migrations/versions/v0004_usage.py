"""Usage, budgets and what services hold of them."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


count = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
time = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create ``usage``, ``usage_days``, ``budgets``, ``budget_holders`` and ``budget_leases``."""
    _create_usage()
    _create_budgets()


def _create_usage() -> None:
    counted = ("requests", "prompt_tokens", "cached_tokens", "completion_tokens", "money")
    op.create_table(
        "usage",
        sa.Column("id", count, autoincrement=True, nullable=False),
        sa.Column("at", time, nullable=False),
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("team", sa.String(200), nullable=False),
        sa.Column("model", sa.String(500), nullable=False),
        sa.Column("endpoint", sa.String(200), nullable=False),
        *(sa.Column(name, count, nullable=False) for name in counted),
        sa.Column("status", sa.String(64), nullable=False),
        sa.Column("estimated", sa.Boolean(), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("holder", sa.String(200), nullable=True),
        sa.Column("account", sa.String(256), nullable=True),
        sa.Column("period", sa.String(10), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_usage")),
    )
    op.create_index(op.f("ix_usage_day_key_id"), "usage", ["day", "key_id"])
    op.create_index(op.f("ix_usage_request_id"), "usage", ["request_id"])
    op.create_index(op.f("ix_usage_holder"), "usage", ["holder"])
    op.create_table(
        "usage_days",
        sa.Column("day", sa.String(10), nullable=False),
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("team", sa.String(200), nullable=False),
        sa.Column("model", sa.String(500), nullable=False),
        *(sa.Column(name, count, nullable=False) for name in (*counted, "estimated_tokens", "estimated_money")),
        sa.PrimaryKeyConstraint("day", "key_id", "team", "model", name=op.f("pk_usage_days")),
    )
    op.create_index(op.f("ix_usage_days_key_id_day"), "usage_days", ["key_id", "day"])
    op.create_index(op.f("ix_usage_days_team_day"), "usage_days", ["team", "day"])


def _create_budgets() -> None:
    op.create_table(
        "budgets",
        sa.Column("account", sa.String(256), nullable=False),
        sa.Column("period", sa.String(10), nullable=False),
        *(
            sa.Column(name, count, nullable=False)
            for name in ("spent_tokens", "spent_money", "leased_tokens", "leased_money")
        ),
        sa.PrimaryKeyConstraint("account", "period", name=op.f("pk_budgets")),
    )
    op.create_table(
        "budget_holders",
        sa.Column("id", sa.String(200), nullable=False),
        sa.Column("place", sa.String(500), nullable=False),
        sa.Column("seen", time, nullable=False),
        sa.Column("batch", count, nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_budget_holders")),
    )
    op.create_table(
        "budget_leases",
        sa.Column("holder", sa.String(200), nullable=False),
        sa.Column("account", sa.String(256), nullable=False),
        sa.Column("period", sa.String(10), nullable=False),
        sa.Column("team", sa.String(200), nullable=False),
        sa.Column("tokens", count, nullable=False),
        sa.Column("money", count, nullable=False),
        sa.PrimaryKeyConstraint("holder", "account", "period", name=op.f("pk_budget_leases")),
    )


def downgrade() -> None:
    """Drop them."""
    for table in ("budget_leases", "budget_holders", "budgets", "usage_days", "usage"):
        op.drop_table(table)
