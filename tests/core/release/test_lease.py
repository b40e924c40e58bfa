"""A lease excludes other processes while its owner is alive, and no longer."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from marquee_core.release.lease import Lease, LeaseHeldError
from marquee_core.release.storage import Storage

HOLDER = """
import sys, time
from marquee_core.release.lease import Lease
from marquee_core.release.storage import Storage
with Lease(Storage(sys.argv[1]), "trainer.lock"):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    """An empty store."""
    return Storage(str(tmp_path / "store"))


def test_a_second_process_learns_who_holds_the_lease(storage: Storage) -> None:
    """The second process can take the lease once the first has released it."""
    with Lease(storage, "trainer.lock") as first:
        with pytest.raises(
            LeaseHeldError, match=r".+@.+ \(process \d+\) has held trainer.lock since"
        ):
            Lease(storage, "trainer.lock").__enter__()
        first.check()
        with Lease(storage, "another.lock"):
            pass
    with Lease(storage, "trainer.lock"):
        pass


def test_the_lease_of_a_killed_process_is_free(storage: Storage) -> None:
    """On the same machine, the lease is free immediately."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, storage.url], stdout=subprocess.PIPE)
    assert process.stdout is not None
    with process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(LeaseHeldError, match=f"process {process.pid}"):
            Lease(storage, "trainer.lock").__enter__()
        process.kill()
    with Lease(storage, "trainer.lock"):
        pass


def hold_on_another_machine(storage: Storage, expires: float) -> None:
    """Rewrite the lease as if another machine held it."""
    raw = json.loads(storage.read("trainer.lock"))
    raw |= {"boot": "another", "token": "another", "name": "them@there", "expires": expires}
    storage.update("trainer.lock", lambda _: json.dumps(raw).encode())


def test_a_lease_of_another_machine_is_free_after_it_expires(storage: Storage) -> None:
    """It is not possible to check whether a process on another machine is alive."""
    with Lease(storage, "trainer.lock"):
        pass
    hold_on_another_machine(storage, 4e9)
    with pytest.raises(LeaseHeldError, match="them@there"):
        Lease(storage, "trainer.lock").__enter__()
    hold_on_another_machine(storage, 1e9)
    with Lease(storage, "trainer.lock"):
        pass


def test_an_owner_notices_the_loss_of_its_lease(storage: Storage) -> None:
    """The owner renews its lease often, and does not take it back from another process."""
    with Lease(storage, "trainer.lock", expires_s=0.3) as lease:
        lease.check()
        hold_on_another_machine(storage, 4e9)
        assert lease.lost.wait(60.0)
        with pytest.raises(LeaseHeldError, match="was lost"):
            lease.check()
    assert json.loads(storage.read("trainer.lock"))["name"] == "them@there"


def test_a_renewed_lease_does_not_expire(storage: Storage) -> None:
    """Even a short lease does not expire while its owner renews it."""
    with Lease(storage, "trainer.lock", expires_s=30.0) as lease:
        first = json.loads(storage.read("trainer.lock"))["expires"]
        renewed = json.loads(storage.update("trainer.lock", lease._extend))["expires"]
        assert renewed > first


def test_a_damaged_lease_is_ignored(storage: Storage) -> None:
    """Otherwise, a damaged lease would block all further training."""
    for content in (b"", b"{", b"[]", b'{"name": 1}'):
        storage.update("trainer.lock", lambda _, damaged=content: damaged)  # type: ignore[misc]
        with Lease(storage, "trainer.lock"):
            pass
