"""Releases are tried in a separate process with limits on time and memory."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from marquee_services.server.releases.fork_server import ForkServer

_HOST = """
import sys, time
from pathlib import Path
from marquee_core.errors import ArtifactError
from marquee_services.server.releases.trial_process import try_releases

def work_on_a_busy_cpu(seconds):
    import os, subprocess
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # Inherited by the others.
    spin = "import time; start = time.monotonic()\\nwhile time.monotonic() < start + 10: pass"
    others = [subprocess.Popen([sys.executable, "-S", "-c", spin]) for _ in range(8)]
    start = time.monotonic()
    while time.monotonic() < start + seconds:
        pass
    for other in others:
        other.kill()

def prepare(settings):
    tried = Path(settings["cache_dir"]) / "tried"

    def load(release_id):
        if release_id == "good":
            tried.write_text(tried.read_text() + "x" if tried.exists() else "x")
        elif release_id == "damaged":
            raise ArtifactError("a file is damaged")
        elif release_id == "away":
            raise OSError("the store is away")
        elif release_id == "crash":
            import os
            os.abort()
        elif release_id == "hang":
            time.sleep(1000)
        elif release_id == "starved":
            work_on_a_busy_cpu(2 * settings["trial_timeout"])
        elif release_id == "greedy":
            held = []
            while True:
                held.append(bytearray(10**7))

    return {"cf": load}

try_releases(prepare)
"""
_SERVER = """
import asyncio, sys
from dataclasses import asdict
from pathlib import Path
from marquee_services.server.settings import ServerSettings
from marquee_services.server.releases.fork_server import ForkServer
from marquee_services.server.releases.trial import ReleaseTrial

host, cache, timeout, digest, serving, *releases = sys.argv[1:]
settings = ServerSettings(cache_dir=cache, trial_timeout=float(timeout), trial_memory_mib=300)

async def main():
    fork_server = ForkServer([sys.executable, "-c", host], asdict(settings))
    trial = ReleaseTrial("cf", settings, fork_server)
    for name in releases:
        (Path(cache) / name).mkdir(exist_ok=True)
        try:
            await trial.run(name, digest, is_serving=serving == "serving")
            print(name, "passed", flush=True)
        except Exception as error:
            print(name, type(error).__name__, error, flush=True)

asyncio.run(main())
"""


def command(
    cache: Path, timeout: float, *release_ids: str, digest: str = "d", is_serving: bool = True
) -> list[str]:
    """Return the command of a server that tries releases one after the other.

    If it serves, it tries a release again for which no CPU was idle.
    """
    state = "serving" if is_serving else "starting"
    arguments = [_HOST, str(cache), str(timeout), digest, state, *release_ids]
    return [sys.executable, "-c", _SERVER, *arguments]


def run(
    cache: Path, timeout: float, *release_ids: str, digest: str = "d", is_serving: bool = True
) -> list[str]:
    """Try releases one after the other, as a server would, and return the results."""
    arguments = command(cache, timeout, *release_ids, digest=digest, is_serving=is_serving)
    done = subprocess.run(arguments, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    return [line for line in lines if line.split()[0] in release_ids]


def test_a_failed_trial_is_reported_and_the_next_one_works(tmp_path: Path) -> None:
    """An error, a crash and excessive memory do not affect the server."""
    found = run(tmp_path, 100, "damaged", "away", "crash", "greedy", "good")
    assert found == [
        "damaged ArtifactError a file is damaged",
        "away OSError the store is away",
        f"crash ArtifactError the process that loaded it on trial ended with {-signal.SIGABRT}",
        "greedy ArtifactError loading it on trial needed more than 300 MiB",
        "good passed",
    ]


def test_a_release_that_hangs_is_refused_in_time(tmp_path: Path) -> None:
    """The process is killed, and the next trial gets a new one."""
    assert (
        run(tmp_path, 0.5, "hang", "hang")
        == ["hang ArtifactError loading it on trial took longer than 0.5 s"] * 2
    )


def test_a_busy_machine_does_not_refuse_a_release(tmp_path: Path) -> None:
    """The time for which a trial waits for a CPU does not count towards its time limit.

    The trial takes twice as long as is allowed, and shares its CPU with eight other processes.
    """
    assert run(tmp_path, 1, "starved") == ["starved passed"]


def test_a_release_that_has_passed_is_not_tried_again(tmp_path: Path) -> None:
    """A server that restarts is ready sooner, and a changed release with the same id is tried."""
    assert run(tmp_path, 100, "good", "good", is_serving=False) == ["good passed"] * 2
    assert run(tmp_path, 100, "good") == ["good passed"]
    assert (tmp_path / "tried").read_text() == "x"
    assert run(tmp_path, 100, "good", digest="changed", is_serving=False) == ["good passed"]
    assert (tmp_path / "tried").read_text() == "xx"


_PREPARED_HOST = """
import os, signal, sys
from pathlib import Path
from marquee_services.server.releases.fork_process import serve_trials

def prepare(settings):
    prepared = Path(settings["prepared"])
    prepared.write_text(prepared.read_text() + "x" if prepared.exists() else "x")

    def load(request):
        if request.get("kill"):
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()
        if request.get("hang"):
            signal.pause()
        return {"error": ""}

    return load

serve_trials(prepare)
"""


async def _forever(_pid: int) -> str:
    await asyncio.Event().wait()
    return ""


def _children() -> set[str]:
    return set(Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split())


async def test_processes_for_trials_run_only_during_trials(tmp_path: Path) -> None:
    """They take memory only then, and a trial whose process is killed can be repeated."""
    prepared, before = tmp_path / "prepared", _children()
    host = [sys.executable, "-c", _PREPARED_HOST]
    answers = []
    async with ForkServer(host, {"prepared": str(prepared)}, idle_s=0.05) as server:
        assert _children() == before
        for kill in (False, True, False):
            answers.append(await server.request({"is_idle": True, "kill": kill}, _forever))
            while _children() != before:
                await asyncio.sleep(0.01)
    assert answers == [
        {"error": ""},
        {"error": "the process that tries releases has ended", "transient": True},
        {"error": ""},
    ]
    assert prepared.read_text() == "xxx"


_POLICIES = """
import os, sys, time
from pathlib import Path
from marquee_services.server.releases.fork_process import serve_trials

def policy():
    return "idle" if os.sched_getscheduler(0) == os.SCHED_IDLE else "other"

def prepare(settings):
    imported = policy()
    if Path(settings["hangs"]).exists():
        time.sleep(1000)
    return lambda request: {"error": "", "policies": f"{imported} {policy()}"}

serve_trials(prepare)
"""


async def test_the_libraries_are_imported_with_the_priority_of_the_trial(tmp_path: Path) -> None:
    """Imports give way to calls, and are watched: they could take forever on a busy machine."""

    async def at_once(_pid: int) -> str:
        return "is slow"

    hangs = tmp_path / "hangs"
    async with ForkServer([sys.executable, "-c", _POLICIES], {"hangs": str(hangs)}) as server:
        policies = [
            (await server.request({"is_idle": is_idle}, _forever))["policies"]
            for is_idle in (True, True, False, True)
        ]
        hangs.touch()
        answer = await server.request({"is_idle": False}, at_once)
    assert policies == ["idle idle", "idle idle", "other other", "idle idle"]
    assert (answer["killed"], answer["transient"]) == ("is slow", True)


async def test_trials_in_a_row_share_a_process(tmp_path: Path) -> None:
    """The libraries are imported once, although each trial has a process of its own."""
    prepared = tmp_path / "prepared"
    host = [sys.executable, "-c", _PREPARED_HOST]
    async with ForkServer(host, {"prepared": str(prepared)}) as server:
        for _ in range(3):
            assert await server.request({"is_idle": True}, _forever) == {"error": ""}
    assert prepared.read_text() == "x"


async def test_a_cancelled_trial_ends_even_if_its_processes_hang(tmp_path: Path) -> None:
    """A server that shuts down during a trial does not wait for it."""
    before = _children()
    host = [sys.executable, "-c", _PREPARED_HOST]
    async with ForkServer(host, {"prepared": str(tmp_path / "prepared")}) as server:
        trial = asyncio.create_task(server.request({"is_idle": True, "hang": True}, _forever))
        while not (found := _children() - before):
            await asyncio.sleep(0.01)
        [pid] = found
        while not Path(f"/proc/{pid}/task/{pid}/children").read_text():
            await asyncio.sleep(0.01)
        os.kill(int(pid), signal.SIGSTOP)
        trial.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trial
    assert _children() == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_the_server(tmp_path: Path, number: signal.Signals) -> None:
    """The processes end with the server even if a trial hangs."""
    with subprocess.Popen(command(tmp_path, 1000, "hang", is_serving=False)) as server:
        pids = [server.pid]
        for _ in ("host", "trial"):
            children = Path(f"/proc/{pids[-1]}/task/{pids[-1]}/children")
            while not (found := children.read_text().split()):
                os.sched_yield()
            pids.append(int(found[0]))
        server.send_signal(number)
        server.wait()
        for pid in pids[1:]:
            while _is_running(pid):
                os.sched_yield()


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
