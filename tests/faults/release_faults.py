"""Faults of releases and of the release store, while users call a gateway and its CF service.

    python -m faults.release_faults

Prints a row for each fault. A fault is survived if no call fails and no answer is degraded: a
release that cannot be served is refused, and the previous release keeps serving.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import numpy as np

from faults.attacker import TESTS_ON_PATH
from faults.fault_table import Row, report
from faults.release_system import System, republished, run_fault, running_system
from marquee_core.arrays import load_array
from marquee_core.release.pruning import prune
from termination import interrupt_on_sigterm
from toy.waiting import wait_until

_MARQUEE = (sys.executable, "-m", "marquee.cli")
_DISK_MIB = 6


def truncated_in_place(system: System) -> Row:
    """Truncates the files of the release in service in the store."""

    def fault(row: Row) -> str:
        serving = system.client.recommend("u1").source.release_id
        files = [p for p in system.release_folder(serving).rglob("*.npy") if p.is_file()]
        for path in files:
            os.truncate(path, path.stat().st_size // 2)
        row.check(system.serves(serving), "the release is no longer served")
        system.promote(system.publish())
        return f"{len(files)} files truncated to half; then another release was promoted"

    return run_fault(system, "release in service truncated in place", fault)


def damaged_copy(system: System) -> Row:
    """Flips a byte in a server's copy of a release: the scrub detects it and copies it again."""

    def fault(row: Row) -> str:
        serving = system.client.recommend("u1").source.release_id
        [path] = (system.cache / serving / "models").rglob("factors.npy")
        before = path.read_bytes()
        path.chmod(0o644)
        with path.open("r+b") as stream:
            stream.seek(len(before) - 1)
            stream.write(bytes([before[-1] ^ 1]))
        wait_until(lambda: path.read_bytes() == before, what="the repair of the copy")
        row.check(system.serves(serving), "the release is no longer served")
        return "one byte of the copied factors was flipped; the scrub copied the file again"

    return run_fault(system, "flipped byte in a server's copy", fault)


def unloadable(system: System, name: str, damage: Callable[[Path], None]) -> Row:
    """Promotes a release with valid digests and unusable contents: the servers refuse it."""

    def fault(row: Row) -> str:
        serving = system.client.recommend("u1").source.release_id
        good = republished(system.store, system.publish(), damage)
        system.store.promote(good.release_id, forced=True)
        wait_until(lambda: system.refused(good.release_id), what="the refusal")
        row.check(system.serves(serving), "the previous release is no longer served")
        reason = system.client.status().pending_release_reason
        system.store.rollback()
        return f"refused: {reason}"

    return run_fault(system, name, fault)


def nan_weights(folder: Path) -> None:
    """Writes a NaN into a model's factors."""
    [path] = (folder / "models").rglob("factors.npy")
    array = np.array(load_array(path, np.float32, (None, None)))
    array[0, 0] = np.nan
    np.save(path, array, allow_pickle=False)


def flipped_byte(system: System) -> Row:
    """Flips a byte of a release before its promotion: the promotion is refused."""

    def fault(row: Row) -> str:
        serving = system.client.recommend("u1").source.release_id
        damaged = system.publish().release_id
        [path] = (system.release_folder(damaged) / "models").rglob("factors.npy")
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
        done = subprocess.run(
            [*_MARQUEE, "releases", "--store", system.store.url, "promote", damaged, "--force"],
            capture_output=True,
            text=True,
        )
        row.check(done.returncode == 1, f"the command exited with {done.returncode}")
        row.check(len(done.stderr.splitlines()) == 1, "the error is not one line")
        production = system.store.production()
        row.check(
            production is not None and production.release_id == serving,
            "the damaged release was promoted",
        )
        return done.stderr.strip()

    return run_fault(system, "flipped byte before a promotion", fault)


def garbage_pointer(system: System) -> Row:
    """Overwrites the pointer to the release in production: a promotion repairs it."""

    def fault(row: Row) -> str:
        before = system.store.production()
        assert before is not None
        path = Path(system.store.storage.path("production"))
        path.write_bytes(b"\x00garbage")
        wait_until(
            lambda: bool(system.client.status().store_error), what="a store error in the status"
        )
        row.check(system.serves(before.release_id), "the release is no longer served")
        system.store.promote(before.release_id, why="repair")
        wait_until(lambda: not system.client.status().store_error, what="the end of the error")
        after = system.store.production()
        assert after is not None
        row.check(after.history == before.history, "the history was lost")
        return (
            "the status reported the error; a promotion restored the history of "
            f"{len(after.history)} releases"
        )

    return run_fault(system, "garbage in place of the pointer", fault)


def rollback_past_damage(system: System) -> Row:
    """Damages the previous release: a rollback skips it and promotes the one before."""

    def fault(row: Row) -> str:
        good, damaged, newest = system.publish(), system.publish(), system.publish()
        for manifest in (good, damaged, newest):
            system.promote(manifest)
        shutil.rmtree(system.release_folder(damaged.release_id) / "models")
        rolled = system.store.rollback(why="drill")
        row.check(
            rolled.release_id == good.release_id, f"the rollback promoted {rolled.release_id}"
        )
        wait_until(
            lambda: system.serves(good.release_id), what="an answer from the undamaged release"
        )
        return "the previous release had lost its models and was skipped"

    return run_fault(system, "rollback past a damaged release", fault)


def promotions_at_once(system: System, rounds: int = 2) -> Row:
    """Promotes from three processes concurrently: history and audit list every promotion."""

    def fault(row: Row) -> str:
        for _ in range(rounds):
            before = len(system.store.pointer.audit())
            ids = [system.publish().release_id for _ in range(3)]
            command = [*_MARQUEE, "releases", "--store", system.store.url, "promote", "--force"]
            running = [
                subprocess.Popen([*command, name], stdout=subprocess.DEVNULL) for name in ids
            ]
            row.check(all(process.wait() == 0 for process in running), "a promotion failed")
            production = system.store.production()
            assert production is not None
            named = {production.release_id, *production.history}
            row.check(named.issuperset(ids), "the history lost a release")
            recorded = len(system.store.pointer.audit()) - before
            row.check(recorded == 3, f"the audit lists {recorded} of 3 promotions")
            wait_until(
                partial(system.serves, production.release_id),
                what="an answer from the last release",
            )
        return f"{rounds} rounds; history and audit list every promotion"

    return run_fault(system, "three concurrent promotions", fault)


_PUBLISHER = """
import os, sys
from pathlib import Path
import shutil
from marquee_core.release.store import ReleaseStore
from toy.release import publish_toy
copy, files = shutil.copyfile, 0
def slow(*arguments, **options):
    global files
    files += 1
    copy(*arguments, **options)
    if files == int(sys.argv[3]):
        os.kill(os.getpid(), 9)
shutil.copyfile = slow
publish_toy(ReleaseStore(sys.argv[1]), Path(sys.argv[2]), seed=99)
"""


def killed_publisher(system: System, kills: int = 3) -> Row:
    """Kills publishers while they copy: no partial release is visible, and pruning deletes it."""

    def fault(row: Row) -> str:
        before = set(system.store.ids())
        for place in range(kills):
            script = [sys.executable, "-c", _PUBLISHER, system.store.url]
            folder = system.folder / f"killed-{place}"
            killed = subprocess.run(
                [*script, str(folder), str(2 * place + 1)], check=False, env=TESTS_ON_PATH
            )
            row.check(killed.returncode == -9, f"the publisher exited with {killed.returncode}")
        row.check(set(system.store.ids()) == before, "a partial release is visible")
        releases = Path(system.store.storage.path("releases"))
        left = list(releases.glob(".partial-*"))
        row.check(len(left) == kills, f"{len(left)} unfinished folders, not {kills}")
        old = (datetime.now(UTC) - timedelta(days=2)).timestamp()
        for folder in left:
            for path in (*folder.rglob("*"), folder):
                os.utime(path, (old, old))
        prune(system.store, 100)
        row.check(not list(releases.glob(".partial-*")), "pruning left unfinished folders")
        return f"pruning deleted {kills} unfinished folders"

    return run_fault(system, "killed publishers", fault)


def fill_disk(file: Path) -> None:
    """Writes to a file until the file system is full."""
    with suppress(OSError), file.open("wb", buffering=0) as stream:
        while stream.write(b"\0" * 4096):
            pass


def full_disk(system: System) -> Row:
    """Fills the cache's disk: the previous release serves until there is space for the new one."""

    def fault(row: Row) -> str:
        serving = system.client.recommend("u1").source.release_id
        filler = system.cache / "filler"
        fill_disk(filler)
        new = system.publish()
        system.store.promote(new.release_id)
        wait_until(lambda: system.refused(new.release_id), what="the refusal in the status")
        reason = system.client.status().pending_release_reason
        row.check(system.serves(serving), "the previous release is no longer served")
        filler.unlink()
        start = time.monotonic()
        wait_until(lambda: system.serves(new.release_id), what="an answer from the new release")
        return f"{reason}; loaded {time.monotonic() - start:.1f} s after space was freed"

    return run_fault(system, "full disk", fault)


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """Mounts a file system of a few MiB; yields None where mounting is not permitted."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_MIB}m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def main() -> int:
    """Runs all faults; the exit status is 0 if all were survived."""
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "system"
        folder.mkdir()
        with running_system(folder) as system:
            rows.append(damaged_copy(system))
            rows.append(truncated_in_place(system))
            rows.append(unloadable(system, "NaN in the weights", nan_weights))
            rows.append(flipped_byte(system))
            rows.append(garbage_pointer(system))
            rows.append(rollback_past_damage(system))
            rows.append(promotions_at_once(system))
            rows.append(killed_publisher(system))
        folder = Path(name) / "on-small-disk"
        folder.mkdir()
        with small_disk(Path(name) / "small") as cache:
            if cache is None:
                sys.stdout.write("full disk: not tested, because mounting is not permitted\n")
            else:
                with running_system(folder, cache) as system:
                    rows.append(full_disk(system))
    return report(rows)


if __name__ == "__main__":
    interrupt_on_sigterm()
    sys.exit(main())
