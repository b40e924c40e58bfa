"""Lets one process at a time train for a store; light to import, to tell the others at once."""

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
"""The file of the lease, in the store."""


@contextmanager
def hold_trainer_lease(store_url: str) -> Iterator[Lease]:
    """Holds the lease of a store's only trainer.

    A folder that this made for the lease is removed at the end if nothing was published there.

    Raises:
        LeaseHeldError: Another process trains for this store; the message says which.
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
    """Removes a store in which there is nothing but what belongs to a lease."""
    try:
        if {path.name for path in store.iterdir()} <= {TRAINER_LEASE, LOCKS}:
            shutil.rmtree(store)
    except OSError:
        # What is left does no harm, and the command's own error must not be hidden.
        return
