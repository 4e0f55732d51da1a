"""Labels of documents, and the keys that may see them."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_JSON = sa.JSON().with_variant(JSONB(), "postgresql")


def upgrade() -> None:
    """Documents that are there have no labels, and all of the team may see them."""
    op.add_column("documents", sa.Column("labels", _JSON, nullable=False, server_default="{}"))
    op.add_column("documents", sa.Column("keys", _JSON, nullable=True))


def downgrade() -> None:
    """Drop both: what only some could see, all can then."""
    op.drop_column("documents", "keys")
    op.drop_column("documents", "labels")
