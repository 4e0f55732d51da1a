"""How the tables came to be: Alembic runs ``versions`` in order, on behalf of ``pagoda.core.storage.migration``."""
