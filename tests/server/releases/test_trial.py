"""Releases are tried in a separate process with limits on time and memory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

_SCRIPT = """
import asyncio, sys, time
from pathlib import Path
from marquee_core.errors import ArtifactError
from marquee_services.server.settings import ServerSettings
from marquee_services.server.releases.fork_server import ForkServer
from marquee_services.server.releases.trial import ReleaseTrial
from marquee_services.server.releases.trial_process import fork_for_trials

cache = Path(sys.argv[1])
tried = cache / "tried"

def work_on_a_busy_cpu():
    import os, subprocess
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # Inherited by the others.
    spin = "import time; start = time.monotonic()\\nwhile time.monotonic() < start + 10: pass"
    others = [subprocess.Popen([sys.executable, "-S", "-c", spin]) for _ in range(8)]
    start = time.monotonic()
    while time.monotonic() < start + 2 * settings.trial_timeout:
        pass
    for other in others:
        other.kill()

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
        work_on_a_busy_cpu()
    elif release_id == "greedy":
        held = []
        while True:
            held.append(bytearray(10**7))

settings = ServerSettings(
    cache_dir=str(cache), trial_timeout=float(sys.argv[2]), trial_memory_mib=300
)
fork_server = ForkServer(*fork_for_trials(lambda: {"cf": load}))

async def main():
    trial = ReleaseTrial("cf", settings, fork_server)
    print(fork_server.pid, flush=True)
    for name in sys.argv[4:]:
        (cache / name).mkdir(exist_ok=True)
        try:
            await trial.run(name, sys.argv[3], is_serving=True)
            print(name, "passed", flush=True)
        except Exception as error:
            print(name, type(error).__name__, error, flush=True)

asyncio.run(main())
"""


def run(cache: Path, timeout: float, *release_ids: str, digest: str = "d") -> list[str]:
    """Try releases one after the other, as a server would, and return the results."""
    command = [sys.executable, "-c", _SCRIPT, str(cache), str(timeout), digest, *release_ids]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[1:]
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
    assert run(tmp_path, 100, "good", "good") == ["good passed"] * 2
    assert run(tmp_path, 100, "good") == ["good passed"]
    assert (tmp_path / "tried").read_text() == "x"
    assert run(tmp_path, 100, "good", digest="changed") == ["good passed"]
    assert (tmp_path / "tried").read_text() == "xx"


_HOSTS = """
import asyncio, os, signal, sys
from pathlib import Path
from marquee_services.server.releases import fork_process
from marquee_services.server.releases.fork_server import ForkServer

fork_process._IDLE_S = 0.05
prepared = Path(sys.argv[1])

def prepare():
    policy = "idle" if os.sched_getscheduler(0) == os.SCHED_IDLE else "other"
    with prepared.open("a") as file:
        print(policy, file=file)
    def load(request):
        if request.get("kill"):
            os.kill(os.getppid(), signal.SIGKILL)
            signal.pause()
        return {"error": ""}
    return load

server = ForkServer(*fork_process.fork(prepare))

async def forever(pid):
    await asyncio.Event().wait()

async def main():
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children")
    assert not children.read_text()
    for request in ({}, {"kill": True}, {}):
        answer = await server.request({"is_idle": True, **request}, forever)
        print(answer.get("error"), answer.get("transient"), flush=True)
        while children.read_text():
            await asyncio.sleep(0.01)

asyncio.run(main())
"""


def test_the_host_of_trials_ends_when_it_is_idle(tmp_path: Path) -> None:
    """It takes memory only during trials, and a trial whose host is killed can be repeated."""
    prepared = tmp_path / "prepared"
    done = subprocess.run(
        [sys.executable, "-c", _HOSTS, str(prepared)], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        " None",
        "the process that tries releases has ended True",
        " None",
    ]
    assert prepared.read_text() == "idle\n" * 3


_POLICIES = """
import asyncio, os, sys, time
from pathlib import Path
from marquee_services.server.releases import fork_process
from marquee_services.server.releases.fork_server import ForkServer

hangs = Path(sys.argv[1])

def policy():
    return "idle" if os.sched_getscheduler(0) == os.SCHED_IDLE else "other"

def prepare():
    imported = policy()
    if hangs.exists():
        time.sleep(1000)
    return lambda request: {"error": "", "policies": f"{imported} {policy()}"}

server = ForkServer(*fork_process.fork(prepare))

async def forever(pid):
    await asyncio.Event().wait()

async def at_once(pid):
    return "is slow"

async def main():
    for is_idle in (True, True, False, True):
        print((await server.request({"is_idle": is_idle}, forever))["policies"], flush=True)
    hangs.touch()
    answer = await server.request({"is_idle": False}, at_once)
    print(answer["killed"], answer["transient"])

asyncio.run(main())
"""


def test_the_libraries_are_imported_with_the_priority_of_the_trial(tmp_path: Path) -> None:
    """Imports give way to calls, and are watched: they could take forever on a busy machine."""
    command = [sys.executable, "-c", _POLICIES, str(tmp_path / "hangs")]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        *("idle idle", "idle idle", "other other", "idle idle"),
        "is slow True",
    ]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_no_process_outlives_the_server(tmp_path: Path, number: signal.Signals) -> None:
    """The processes end with the server even if a trial hangs."""
    command = [sys.executable, "-c", _SCRIPT, str(tmp_path), "1000", "d", "hang"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        pids = [int(server.stdout.readline())]
        for _ in ("host", "trial"):
            children = Path(f"/proc/{pids[-1]}/task/{pids[-1]}/children")
            while not (found := children.read_text().split()):
                os.sched_yield()
            pids.append(int(found[0]))
        server.send_signal(number)
        server.wait()
        for pid in pids:
            while _is_running(pid):
                os.sched_yield()


def _is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
