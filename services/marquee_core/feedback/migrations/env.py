"""Runs the migrations on the connection passed by `marquee_core.feedback.migrate`."""

from __future__ import annotations

from alembic import context

from marquee_core.feedback.schema import METADATA

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=METADATA,
    render_as_batch=True,
)
# The caller's transaction is already open.
context.run_migrations()
