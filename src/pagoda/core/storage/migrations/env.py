"""Alembic's entry: runs the migrations on the connection that ``pagoda.core.storage.migration`` hands over."""

from alembic import context

import pagoda.core.storage.agent_records
import pagoda.core.storage.experiment_records
import pagoda.core.storage.prompt_records
import pagoda.core.storage.review_records  # noqa: F401  (their tables are part of the metadata)
from pagoda.core.storage.migration import VERSION_TABLE
from pagoda.core.storage.records import Record

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Record.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
