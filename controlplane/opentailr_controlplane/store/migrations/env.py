"""Entry point of Alembic: runs on the connection that the store hands over, online only."""

from __future__ import annotations

from alembic import context

from opentailr_controlplane.store.schema import metadata

context.configure(
    connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True
)
with context.begin_transaction():
    context.run_migrations()
