"""Run by alembic for each upgrade: writes what is to be done as SQL, and does nothing itself. See `storage.upgrade`."""

from alembic import context

context.configure(
    dialect_name=context.config.attributes["dialect"],
    # Others would have each percent sign doubled, for a driver that is not asked.
    dialect_opts={"paramstyle": "named"},
    output_buffer=context.config.output_buffer,
)
context.run_migrations()
