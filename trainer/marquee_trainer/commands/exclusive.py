"""Lets one process at a time train for a store; light to import, to tell the others at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from marquee_core.release.lease import Lease
from marquee_trainer.commands.interrupt import also_when_ended
from marquee_trainer.commands.loading import open_store

TRAINER_LEASE = "trainer.lock"
"""The file of the lease, in the store."""


@contextmanager
def only_trainer(store_url: str) -> Iterator[Lease]:
    """Holds the lease of a store's only trainer.

    Raises:
        LeaseHeldError: Another process trains for this store; the message says which.
        ClickException: The store's URL cannot be used.
        OSError: The store cannot be written to.
    """
    lease = Lease(open_store(store_url).storage, TRAINER_LEASE)
    with lease, also_when_ended(lease.release):
        yield lease
