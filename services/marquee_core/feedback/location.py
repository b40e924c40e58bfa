"""Where the feedback log is, as settings name it; light to import."""

from __future__ import annotations

from pathlib import Path

BESIDE_STORE = "sqlite"
"""The setting for a SQLite file beside the release store."""

_SCHEMES = ("sqlite:///", "postgresql://", "postgresql+psycopg://")


def check_log_setting(setting: str, store: str) -> None:
    """Checks the setting of a feedback log.

    Args:
        setting: `sqlite`, `sqlite:///PATH`, `postgresql://…`, or "" for no log.
        store: The folder or URL of the release store.

    Raises:
        ValueError: The setting is none of these, or names a file beside a store that is in no
            folder.
    """
    if setting not in ("", BESIDE_STORE) and not setting.startswith(_SCHEMES):
        raise ValueError("feedback: neither `sqlite` nor a URL of SQLite or PostgreSQL")
    if setting == BESIDE_STORE and "://" in store:
        raise ValueError("feedback: `sqlite` needs a store in a folder")


def log_url(setting: str, store: str) -> str:
    """Returns the URL of the log that a setting names; "" for none.

    Args:
        setting: A setting that `check_log_setting` accepts.
        store: The folder or URL of the release store.
    """
    if setting != BESIDE_STORE:
        return setting
    path = Path(store).expanduser().absolute()
    return f"sqlite:///{path.with_name(path.name + '-feedback.sqlite')}"
