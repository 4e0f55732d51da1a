"""Alembic's entry: runs the migrations on the connection that ``pagoda.core.storage.migration`` hands over."""

from alembic import context

from pagoda.core.storage import experiment_records, review_records
from pagoda.core.storage.migration import VERSION_TABLE
from pagoda.core.storage.records import Record

ALL = (experiment_records, review_records)  # tables are known once their modules are

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Record.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
