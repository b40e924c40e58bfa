"""A release store in object storage, accessed over the S3 protocol."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from marquee import Client
from marquee_core.service_names import GATEWAY
from marquee_services.processes import ServiceProcess
from toy.object_storage import ObjectStorage, is_available
from toy.store_races import count_concurrently, promote_concurrently

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(not is_available(), reason="needs moto and s3fs (`make object-storage`)"),
]

_PUBLISH = """
import sys, tempfile
from pathlib import Path
from marquee_core.release.store import ReleaseStore
from toy.bare_release import make_release
store = ReleaseStore(sys.argv[1])
for name in sys.argv[2:]:
    with tempfile.TemporaryDirectory() as folder:
        store.publish(Path(folder), make_release(Path(folder), release_id=name))
"""
_PUBLISH_TOY = """
import sys, tempfile
from pathlib import Path
from marquee_core.release.store import ReleaseStore
from toy.release import publish_toy
with tempfile.TemporaryDirectory() as folder:
    store = ReleaseStore(sys.argv[1])
    manifest = publish_toy(store, Path(folder) / "x", int(sys.argv[2]), backends=())
    if sys.argv[3] == "promote":
        store.promote(manifest.release_id)
    print(manifest.release_id, end="")
"""
_CHECK = """
import sys
from marquee_core.release.store import ReleaseStore
from marquee_core.release.storage import Storage, SwapConflictError
from toy.store_races import check_history
check_history(ReleaseStore(sys.argv[1]), int(sys.argv[2]))
storage = Storage(sys.argv[1])
assert storage.read("count") == b"15"
found = storage.read_versioned("count")
storage.swap("count", b"16", found.version)
for write in (
    lambda: storage.swap("count", b"17", found.version),
    lambda: storage.swap("count", b"17", ""),
    lambda: storage.swap("absent", b"17", found.version),
):
    try:
        write()
    except SwapConflictError:
        continue
    raise AssertionError("another content was replaced")
try:
    storage.create("count", b"17")
except FileExistsError:
    print(storage.read("count").decode(), end="")
"""
_FLIP = """
import sys
from marquee_core.release.storage import Storage
storage = Storage(sys.argv[1])
path = storage.path(f"releases/{sys.argv[2]}/data/years.npy")
content = storage.fs.cat_file(path)
storage.fs.pipe_file(path, content[:-1] + bytes([content[-1] ^ 1]))
"""
_EXPERIMENT = """
import sys
from concurrent.futures import ThreadPoolExecutor
from marquee_core.experiments.experiment import Arm, ExperimentError
from marquee_core.experiments.store import ExperimentStore
from marquee_core.release.store import ReleaseStore
release_id = ReleaseStore(sys.argv[1]).ids()[0]
arms = [Arm("control", release_id, 50.0), Arm("b", release_id, 50.0)]
def start(number):
    try:
        ExperimentStore(ReleaseStore(sys.argv[1])).create(f"e{number}", arms)
    except ExperimentError:
        return 0
    return 1
with ThreadPoolExecutor(4) as pool:
    started = sum(pool.map(start, range(4)))
store = ExperimentStore(ReleaseStore(sys.argv[1]))
[running] = store.all()
ended = store.end(running.name, "stopped")
assert store.all() == [ended]
print(started, end="")
"""
IDS = [f"2026010{day}T000000Z-00000000" for day in (1, 2, 3)]


@pytest.fixture(scope="module")
def storage(
    free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ObjectStorage]:
    """An object store shared by these tests, each of which uses a separate folder."""
    running = ObjectStorage(free_port(), tmp_path_factory.mktemp("storage") / "log")
    yield running
    running.stop()


@pytest.fixture
def store(storage: ObjectStorage, request: Any, monkeypatch: Any) -> ObjectStorage:
    """An empty store that child processes of this test can access."""
    storage.url = f"s3://marquee/{request.node.name}"
    for name, value in storage.environment.items():
        monkeypatch.setenv(name, value)
    return storage


def test_concurrent_changes_lose_nothing(store: ObjectStorage) -> None:
    """Conditional requests decide which of three writers was first, and the others retry."""
    store.run(_PUBLISH, *IDS)
    promote_concurrently(sys.executable, store.url, IDS, 5, store.environment)
    count_concurrently(sys.executable, store.url, 5, store.environment)
    assert store.run(_CHECK, "15") == "16"


def test_only_one_of_several_concurrent_experiments_starts(store: ObjectStorage) -> None:
    """The others see the running one, as the file is replaced by compare-and-swap."""
    store.run(_PUBLISH_TOY, "0", "publish")
    assert store.run(_EXPERIMENT) == "1"


def commands(
    store: ObjectStorage, *arguments: str, environment: dict[str, str] | None = None
) -> tuple[int, str]:
    """Run `marquee releases`, and return its exit status and output."""
    done = subprocess.run(
        [sys.executable, "-m", "marquee.cli", "releases", "--store", store.url, *arguments],
        env=environment or store.environment,
        check=False,
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_release_with_a_flipped_byte_is_refused(store: ObjectStorage) -> None:
    """Digests are also verified in object storage, and errors take one line."""
    release_id = store.run(_PUBLISH_TOY, "1", "no")
    assert commands(store, "verify", "--files-only", release_id)[0] == 0
    store.run(_FLIP, release_id)
    for arguments in (["verify", "--files-only"], ["promote", "--force"]):
        status, output = commands(store, *arguments, release_id)
        assert (status, len(output.splitlines())) == (1, 1)
        assert "data/years.npy: the file has SHA-256" in output


def test_an_unreachable_store_is_reported_in_one_line(store: ObjectStorage) -> None:
    """The error omits the password in the URL."""
    unreachable = {**store.environment, "AWS_ENDPOINT_URL": "http://127.0.0.1:1"}
    status, output = commands(store, "list", environment=unreachable)
    assert (status, len(output.splitlines())) == (1, 1)
    assert "127.0.0.1:1" in output


def test_a_frozen_store_blocks_neither_answers_nor_shutdown(
    store: ObjectStorage, tmp_path: Path
) -> None:
    """A gateway answers from its copies, polls again once the store is back, and stops promptly."""
    first = store.run(_PUBLISH_TOY, "1", "promote")
    options = {
        "store": store.url,
        "cache-dir": str(tmp_path / "cache"),
        "poll-interval": "0.1",
        "grace": "1",
    }
    gateway = ServiceProcess(GATEWAY, options, tmp_path / "log")
    try:
        gateway.wait_until_serving()
        with Client(gateway.address, timeout=60) as client:
            store.suspend()
            for _ in range(5):
                assert client.recommend("u1").source.release_id == first
            store.resume()
            second = store.run(_PUBLISH_TOY, "2", "promote")
            while client.recommend("u1").source.release_id != second:
                os.sched_yield()
            store.suspend()
            client.recommend("u1")
        assert gateway.stop() == 0
    finally:
        store.resume()
        gateway.kill()
