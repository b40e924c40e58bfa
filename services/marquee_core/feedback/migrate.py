"""Creates the tables of the log, and migrates those of older versions."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

from marquee_core.feedback.engine import lock_writers
from marquee_core.feedback.events import LogTooNew

REVISION = "0004"
"""The revision of the tables that this version uses: the last one in `migrations/versions`."""

_FOLDER = Path(__file__).parent / "migrations"


def upgrade(engine: Engine) -> None:
    """Brings the tables to this version's revision.

    Processes that start at the same time wait for each other. If the tables are up to date, no
    rights to change them are needed.

    Args:
        engine: An engine for transactions that write.

    Raises:
        LogTooNew: The tables have a revision that this version does not know.
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
    # Alembic takes time to import and is needed only here.
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
            f"the feedback log has revision {_revision(connection)}, which this version does not "
            f"know: it knows {REVISION}"
        ) from error
