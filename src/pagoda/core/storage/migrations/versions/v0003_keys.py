"""Keys, teams and the audit log; whose each file and batch is."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables ``keys``, ``teams`` and ``audit``; what was uploaded before belongs to this machine's user."""
    count = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    document = sa.JSON().with_variant(JSONB(), "postgresql")
    time = sa.DateTime(timezone=True)
    op.create_table(
        "keys",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("team", sa.String(64), nullable=False),
        sa.Column("shown", sa.String(16), nullable=False),
        sa.Column("secret_hash", sa.String(64), nullable=False),
        sa.Column("previous_hash", sa.String(64), nullable=True),
        sa.Column("previous_until", time, nullable=True),
        sa.Column("scopes", sa.String(100), nullable=False),
        sa.Column("models", document, nullable=True),
        sa.Column("priority", count, nullable=False),
        sa.Column("limits", document, nullable=False),
        sa.Column("created", time, nullable=False),
        sa.Column("expires", time, nullable=True),
        sa.Column("revoked", time, nullable=True),
        sa.Column("last_used", time, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_keys")),
    )
    op.create_index(op.f("ix_keys_secret_hash"), "keys", ["secret_hash"], unique=True)
    op.create_index(op.f("ix_keys_previous_hash"), "keys", ["previous_hash"])
    op.create_index(op.f("ix_keys_name"), "keys", ["name"])
    op.create_table(
        "teams",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("limits", document, nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_teams")),
    )
    op.create_table(
        "audit",
        sa.Column("id", count, nullable=False, autoincrement=True),
        sa.Column("at", time, nullable=False),
        sa.Column("who", sa.String(64), nullable=False),
        sa.Column("address", sa.String(64), nullable=False),
        sa.Column("action", sa.String(100), nullable=False),
        sa.Column("subject", sa.String(300), nullable=False),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit")),
    )
    op.create_index(op.f("ix_audit_at"), "audit", ["at"])
    for table in ("files", "batches"):
        op.add_column(table, sa.Column("tenant", sa.String(64), nullable=False, server_default="local"))


def downgrade() -> None:
    """Drop them: whoever has a key loses it, and files belong to everybody again."""
    for table in ("files", "batches"):
        op.drop_column(table, "tenant")
    for table in ("audit", "teams", "keys"):
        op.drop_table(table)
