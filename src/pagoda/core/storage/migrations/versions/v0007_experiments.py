"""Online experiments, feedback and reviews."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

COUNT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(JSONB(), "postgresql")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create the tables of experiments, of feedback and of reviews."""
    _create_experiments()
    _create_feedback()
    _create_reviews()


def _create_experiments() -> None:
    op.create_table(
        "experiments",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("team", sa.String(64), nullable=False),
        sa.Column("name", sa.String(100), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("target_kind", sa.String(16), nullable=False),
        sa.Column("target", sa.String(500), nullable=False),
        sa.Column("design", JSON, nullable=False),
        sa.Column("exposure", sa.Double(), nullable=False),
        sa.Column("slices", JSON, nullable=False),
        sa.Column("revision", COUNT, nullable=False),
        sa.Column("created", TIME, nullable=False),
        sa.Column("started", TIME, nullable=True),
        sa.Column("stopped", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_experiments")),
    )
    op.create_index(op.f("ix_experiments_team_name"), "experiments", ["team", "name"], unique=True)
    op.create_index(op.f("ix_experiments_state"), "experiments", ["state"])
    op.create_table(
        "experiment_exposures",
        sa.Column("id", COUNT, autoincrement=True, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("experiment_id", sa.String(64), nullable=False),
        sa.Column("team", sa.String(64), nullable=False),
        sa.Column("unit", sa.String(64), nullable=False),
        sa.Column("variant", sa.String(64), nullable=False),
        sa.Column("slice", COUNT, nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_experiment_exposures")),
    )
    op.create_index(op.f("ix_experiment_exposures_request_id"), "experiment_exposures", ["request_id"])
    op.create_index(
        op.f("ix_experiment_exposures_experiment_id_unit"), "experiment_exposures", ["experiment_id", "unit"]
    )
    op.create_table(
        "experiment_outcomes",
        sa.Column("id", COUNT, autoincrement=True, nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("experiment_id", sa.String(64), nullable=False),
        sa.Column("metric", sa.String(64), nullable=False),
        sa.Column("unit", sa.String(64), nullable=False),
        sa.Column("variant", sa.String(64), nullable=False),
        sa.Column("slice", COUNT, nullable=False),
        sa.Column("value", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_experiment_outcomes")),
    )
    op.create_index(
        op.f("ix_experiment_outcomes_experiment_id_metric_unit"),
        "experiment_outcomes",
        ["experiment_id", "metric", "unit"],
        unique=True,
    )


def _create_feedback() -> None:
    op.create_table(
        "feedback",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("at", TIME, nullable=False),
        sa.Column("team", sa.String(64), nullable=False),
        sa.Column("subject", sa.String(200), nullable=False),
        sa.Column("author", sa.String(500), nullable=False),
        sa.Column("thumb", sa.String(8), nullable=True),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("correction", sa.Text(), nullable=True),
        sa.Column("metrics", JSON, nullable=False),
        sa.Column("prompt", JSON, nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_feedback")),
    )
    op.create_index(op.f("ix_feedback_team_subject_author"), "feedback", ["team", "subject", "author"], unique=True)
    op.create_index(op.f("ix_feedback_team_at"), "feedback", ["team", "at"])


def _create_reviews() -> None:
    op.create_table(
        "reviews",
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("team", sa.String(64), nullable=False),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reasons", JSON, nullable=False),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.Column("needed", COUNT, nullable=False),
        sa.Column("model", sa.String(500), nullable=False),
        sa.Column("prompt_version", sa.String(300), nullable=True),
        sa.Column("prompt", JSON, nullable=True),
        sa.Column("answer", sa.Text(), nullable=True),
        sa.Column("created", TIME, nullable=False),
        sa.Column("decided", TIME, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_reviews")),
    )
    op.create_index(op.f("ix_reviews_team_request_id"), "reviews", ["team", "request_id"], unique=True)
    op.create_index(op.f("ix_reviews_team_state_created"), "reviews", ["team", "state", "created"])
    op.create_table(
        "review_judgements",
        sa.Column("id", COUNT, autoincrement=True, nullable=False),
        sa.Column("review_id", sa.String(64), nullable=False),
        sa.Column("reviewer", sa.String(200), nullable=False),
        sa.Column("judge", sa.Boolean(), nullable=False),
        sa.Column("claimed", TIME, nullable=False),
        sa.Column("until", TIME, nullable=False),
        sa.Column("decision", sa.String(16), nullable=True),
        sa.Column("score", sa.Double(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("edited", sa.Text(), nullable=True),
        sa.Column("at", TIME, nullable=True),
        sa.ForeignKeyConstraint(["review_id"], ["reviews.id"], name=op.f("fk_review_judgements_review_id_reviews")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_review_judgements")),
    )
    op.create_index(
        op.f("ix_review_judgements_review_id_reviewer"), "review_judgements", ["review_id", "reviewer"], unique=True
    )
