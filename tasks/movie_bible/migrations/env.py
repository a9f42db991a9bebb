"""Run the migrations for Alembic, on the connection and in the transaction of the caller."""

from __future__ import annotations

from alembic import context

from tasks.movie_bible.models import VERSION_TABLE, Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
)
with context.begin_transaction():
    context.run_migrations()
