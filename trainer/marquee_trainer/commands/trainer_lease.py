"""Allows one process at a time to train for a store; light to import, so others fail fast."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from marquee_core.release.lease import Lease
from marquee_core.release.storage import LOCKS
from marquee_trainer.commands.interrupt import run_on_forced_exit
from marquee_trainer.commands.loading import open_store

TRAINER_LEASE = "trainer.lock"
"""The lease's file in the store."""


@contextmanager
def hold_trainer_lease(store_url: str) -> Iterator[Lease]:
    """Holds the trainer lease of a store.

    If this creates the store's folder and nothing is published there, the folder is removed again.

    Raises:
        LeaseHeldError: Another process is training for this store; the message names it.
        ClickException: The store's URL cannot be used.
        OSError: The store cannot be written to.
    """
    storage = open_store(store_url).storage
    is_new = storage.is_local and not Path(storage.root).exists()
    lease = Lease(storage, TRAINER_LEASE)

    def end() -> None:
        lease.release()
        if is_new:
            _remove_if_empty(Path(storage.root))

    with lease, run_on_forced_exit(end):
        try:
            yield lease
        finally:
            end()


def _remove_if_empty(store: Path) -> None:
    """Removes a store that holds nothing but the files of a lease."""
    try:
        if {path.name for path in store.iterdir()} <= {TRAINER_LEASE, LOCKS}:
            shutil.rmtree(store)
    except OSError:
        # Left-over files do no harm, and the command's own error must not be hidden.
        return
