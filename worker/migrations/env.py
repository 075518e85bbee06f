"""Alembic's entry: migrates over the connection it is given."""

from alembic import context

from worker.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite cannot alter most things in place
    transaction_per_migration=True,
)
with context.begin_transaction():
    context.run_migrations()
