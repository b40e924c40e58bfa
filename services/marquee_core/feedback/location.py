"""The location of the feedback log, as given in settings; imports no database library."""

from __future__ import annotations

from pathlib import Path

BESIDE_STORE = "sqlite"
"""The setting for a SQLite file next to the release store."""

_SCHEMES = ("sqlite:///", "postgresql://", "postgresql+psycopg://")


def check_log_setting(setting: str, store: str) -> None:
    """Checks the setting of a feedback log.

    Args:
        setting: `sqlite`, `sqlite:///PATH`, `postgresql://…`, or "" for no log.
        store: The folder or URL of the release store.

    Raises:
        ValueError: The setting does not have one of these forms, or is `sqlite` although the store
            is not a local folder.
    """
    if setting not in ("", BESIDE_STORE) and not setting.startswith(_SCHEMES):
        raise ValueError(
            "feedback: must be `sqlite`, or the URL of a SQLite or PostgreSQL database"
        )
    if setting == BESIDE_STORE and "://" in store:
        raise ValueError("feedback: `sqlite` needs a store in a local folder")


def log_url(setting: str, store: str) -> str:
    """Returns the URL of the log for a setting; "" for no log.

    Args:
        setting: A setting accepted by `check_log_setting`.
        store: The folder or URL of the release store.
    """
    if setting != BESIDE_STORE:
        return setting
    path = Path(store).expanduser().absolute()
    return f"sqlite:///{path.with_name(path.name + '-feedback.sqlite')}"
