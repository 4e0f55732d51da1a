"""Records: keys, usage, prompts, runs and whatever else must be found again by its fields.

``store`` opens the database and reads and writes it (``writer`` on a thread), ``records`` holds the tables,
``migrations`` the way from each version of them to the next, ``address`` and ``place`` decide where the database may
lie, and ``faults`` puts a database's complaints into Pagoda's words. Large or append-only things (model files,
metrics, logs) are files, not records.

::

    async with open_store(settings) as store:
        async with store.read() as session:
            rows = (await session.scalars(select(RunRecord))).all()
        await store.write(insert_them)  # which awaits, or
        await store.apply(mapped(insert_them))  # which does not, and costs a third
"""
