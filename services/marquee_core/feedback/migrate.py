"""Creates the tables of the log, and migrates tables of older versions."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from marquee_core.feedback.engine import lock_writers
from marquee_core.feedback.events import LogTooNew

REVISION = "0004"
"""The current revision of the tables: the last one in `migrations/versions`."""

_FOLDER = Path(__file__).parent / "migrations"


def upgrade(engine: Engine) -> None:
    """Upgrades the tables to the current revision.

    Processes that start concurrently wait for each other. If the tables are up to date, no
    privileges to change them are needed.

    Args:
        engine: An engine for write transactions.

    Raises:
        LogTooNew: The tables have an unknown, newer revision.
    """
    with engine.connect() as connection:
        if _revision(connection) == REVISION:
            return
    with engine.begin() as connection:
        lock_writers(connection)
        if _revision(connection) != REVISION:
            _run(connection)


def _revision(connection: Connection) -> str:
    """Returns the revision of the tables; "" if there are none."""
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return connection.scalar(text("SELECT version_num FROM alembic_version")) or ""


def _run(connection: Connection) -> None:
    # Imported here, because Alembic is slow to import and rarely needed.
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise LogTooNew(
            f"the feedback log has the unknown revision {_revision(connection)}; this version of "
            f"Marquee supports revisions up to {REVISION}"
        ) from error
