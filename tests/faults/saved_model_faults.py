"""Faulty SavedModels, while users call a gateway and its inference service.

    python -m faults.saved_model_faults

Prints a row for each fault. A fault is survived if no call fails: a model that hangs or fails in
the trial is refused, and one that fails only for some users is withdrawn after a few failures.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import psutil

from faults.fault_table import Row, report
from faults.release_system import System, run_fault, running_system
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import INFERENCE
from marquee_services.processes import ServiceProcess
from termination import interrupt_on_sigterm
from toy import saved_models
from toy.release import publish_toy
from toy.saved_models import ENDLESS, GOOD, SOME_ITEMS, SOME_VISITORS
from toy.waiting import wait_until

Models = Mapping[str, Path]
# Limits on the time of a trial, which must suffice for a valid SavedModel on a loaded machine, in
# seconds and as a multiple of the time that saving a SavedModel takes.
_SHORTEST_TRIAL_S, _LONGEST_TRIAL_S, _TRIAL_PER_SAVING = 15.0, 40.0, 3.0
_SAVED_AT_ONCE = 2
# Longer than `--grace`, since a loaded machine takes longer to end a process.
_SIGTERM_S = 30.0


@contextmanager
def saved_model_system(folder: Path) -> Iterator[tuple[System, Models]]:
    """Runs a system with an inference service; yields it and the SavedModels' folders by kind."""
    models = {kind: folder / kind for kind in saved_models.KINDS}

    def save(kind: str) -> float:
        start = time.monotonic()
        saved_models.save(kind, models[kind])
        return time.monotonic() - start

    with ThreadPoolExecutor(_SAVED_AT_ONCE) as pool:
        seconds = dict(zip(models, pool.map(save, models), strict=True))
    # Like a trial, this imports TensorFlow and runs a small model.
    trial_s = _TRIAL_PER_SAVING * seconds[GOOD]
    trial_s = min(max(trial_s, _SHORTEST_TRIAL_S), _LONGEST_TRIAL_S)
    (folder / "system").mkdir()
    with running_system(
        folder / "system", saved_model=models[GOOD], trial_timeout=f"{trial_s:.0f}"
    ) as system:
        yield system, models


def never_loaded(system: System, models: Models) -> Row:
    """Promotes a SavedModel whose loading hangs: it is refused in time, and rolled back."""

    def fault(row: Row) -> str:
        serving = system.client.recommend("u1").source.release_id
        endless = system.publish(models[ENDLESS])
        system.store.promote(endless.release_id, forced=True)
        start = time.monotonic()
        wait_until(lambda: system.refused(endless.release_id), what="the refusal")
        took = time.monotonic() - start
        reason = system.client.status().pending_release_reason
        row.check(system.serves(serving), "the previous release is no longer served")
        system.store.rollback()
        wait_until(
            lambda: not system.client.status().pending_release_reason,
            what="the end of the rollback",
        )
        system.promote(system.publish())
        return f"refused after {took:.0f} s: {reason}; the next release was loaded"

    return run_fault(system, "SavedModel that hangs while loading", fault)


def ended_while_loading(system: System, models: Models) -> Row:
    """Sends SIGTERM to a server whose trial hangs, and to one whose first load hangs."""

    def fault(row: Row) -> str:
        # A store of its own, so that the system's servers need not try the release as well.
        store = ReleaseStore(str(system.folder / "other-store"))

        def publish(kind: str) -> str:
            folder, model = system.folder / f"other-{kind}", models[kind]
            return publish_toy(store, folder, backends=(INFERENCE,), saved_model=model).release_id

        store.promote(publish(GOOD))
        options = {**system.backend_options, "store": store.url, "trial-timeout": "600"}
        other = ServiceProcess(system.backend, options, system.folder / "other.log")
        first = None
        try:
            other.wait_until_serving()
            store.promote(publish(ENDLESS), forced=True)
            server = psutil.Process(other.pid)
            # The process that imports the libraries, and the trial that it forks.
            wait_until(lambda: len(server.children(recursive=True)) > 1, what="the trial")
            children = server.children(recursive=True)
            tried_s = _stopped(row, other, "whose trial hangs")
            wait_until(lambda: not any(map(_runs, children)), what="the end of the trial")
            first = ServiceProcess(system.backend, options, system.folder / "first.log")
            watched = psutil.Process(first.pid)
            begun_s = _cpu_s(watched)
            wait_until(lambda: _cpu_s(watched) > begun_s + 1, what="the loading")
            first_s = _stopped(row, first, "that loads its first release")
        finally:
            other.kill()
            if first is not None:
                first.kill()
        return f"the servers exited after {tried_s:.1f} s and {first_s:.1f} s"

    return run_fault(system, "SIGTERM while a SavedModel hangs", fault)


def fails_for_some_items(system: System, models: Models) -> Row:
    """Promotes a SavedModel that fails for some candidate items: the warm-up detects it."""

    def fault(row: Row) -> str:
        serving = system.client.recommend("u1").source.release_id
        bad = system.publish(models[SOME_ITEMS])
        system.store.promote(bad.release_id, forced=True)
        wait_until(lambda: system.refused(bad.release_id), what="the refusal")
        reason = system.client.status().pending_release_reason
        row.check(system.serves(serving), "the previous release is no longer served")
        system.store.rollback()
        wait_until(
            lambda: not system.client.status().pending_release_reason,
            what="the end of the rollback",
        )
        return f"refused: {reason[:160]}"

    return run_fault(system, "SavedModel that fails for some candidates", fault)


def fails_for_some_visitors(system: System, models: Models) -> Row:
    """Promotes a SavedModel that fails for some visitors: it is withdrawn after a few failures.

    Answers for these visitors are degraded, because the only backend fails.
    """

    def fault(row: Row) -> str:
        serving = system.client.recommend("u1").source.release_id
        bad = system.publish(models[SOME_VISITORS])
        system.store.promote(bad.release_id, forced=True)
        wait_until(lambda: system.serves(bad.release_id), what="an answer from the new release")
        start = time.monotonic()
        wait_until(
            lambda: system.client.recommend("u1").source.release_id == serving,
            what="the withdrawal",
        )
        took = time.monotonic() - start
        wait_until(lambda: system.serves(serving), what="a full answer from the previous release")
        reason = system.client.status().pending_release_reason
        row.check("withdrawn" in reason, f"the status does not give the reason: {reason!r}")
        system.store.rollback()
        return f"withdrawn {took:.1f} s after its first answer: {reason[:200]}"

    row = run_fault(system, "SavedModel that fails for some visitors", fault)
    degraded = [text for text in row.problems if text.endswith("were degraded")]
    row.problems = [text for text in row.problems if text not in degraded]
    return row


def _stopped(row: Row, process: ServiceProcess, which: str) -> float:
    """Stops a process, and returns how many seconds it took."""
    start = time.monotonic()
    status = process.stop()
    took = time.monotonic() - start
    row.check(status == 0, f"a server {which} exited with status {status}")
    row.check(took < _SIGTERM_S, f"a server {which} took {took:.0f} s to exit")
    return took


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _cpu_s(process: psutil.Process) -> float:
    """Returns the CPU time of a process and its children in seconds.

    A server without a release loads SavedModels in a child.
    """
    times = [found.cpu_times() for found in (process, *process.children(recursive=True))]
    return float(sum(found.user + found.system for found in times))


def main() -> int:
    """Runs all faults; the exit status is 0 if all were survived."""
    with tempfile.TemporaryDirectory() as name, saved_model_system(Path(name)) as (system, models):
        return report(
            [
                never_loaded(system, models),
                ended_while_loading(system, models),
                fails_for_some_items(system, models),
                fails_for_some_visitors(system, models),
            ]
        )


if __name__ == "__main__":
    interrupt_on_sigterm()
    sys.exit(main())
