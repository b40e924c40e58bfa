"""Kills gateways that record feedback, and compares the log with the acknowledged events.

    python -m faults.feedback_kills --kills 50

The short form runs with the tests.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import marquee
from marquee import FeedbackEvent
from marquee_core.feedback.events import EntryType
from marquee_core.feedback.log import EventLog
from marquee_core.service_names import GATEWAY
from marquee_services.processes import ServiceProcess
from termination import interrupt_on_sigterm
from toy.postgresql import PostgreSQL, programs
from toy.waiting import wait_until

_SENDERS = 4
_BATCH = 20
# Generous, because a loaded machine takes long to start a process.
_CALL_TIMEOUT_S = 20.0
_RETRY_S = 0.02
# Kills follow within this time, so that they hit gateways that start, read and write.
_MAX_LIFE_S = 0.5
# Every so many kills come after an acknowledgement. The others may come while the gateway starts.
_KILLS_PER_ANSWER = 3


@dataclass
class Outcome:
    """The result of a run.

    Attributes:
        kills: Number of kills.
        acknowledged: Ids of all acknowledged events.
        lost: Ids of acknowledged events that are not in the log.
        duplicated: Ids of events that are in the log more than once.
        unknown: Ids of events in the log that were never sent.
        repeated: Number of calls that failed and were retried.
        unacknowledged: Number of retried events that the failed call had recorded.
    """

    kills: int = 0
    acknowledged: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    duplicated: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    repeated: int = 0
    unacknowledged: int = 0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {len(self.acknowledged)} events acknowledged, "
            f"{len(self.lost)} lost, {len(self.duplicated)} duplicated, {len(self.unknown)} "
            f"unknown; {self.repeated} calls retried, {self.unacknowledged} of their events had "
            "been recorded before the kill"
        )


class _Sender(threading.Thread):
    """A thread that records batches of events, retrying each until it is acknowledged.

    When the thread is stopped, its last batch may remain unacknowledged.
    """

    def __init__(self, number: int, address: Callable[[], str], stop: threading.Event) -> None:
        super().__init__(name=f"sender-{number}", daemon=True)
        self._number = number
        self._address = address
        self._stop_sending = stop
        self.outcome = Outcome()
        self.sent: set[str] = set()

    def run(self) -> None:
        """Sends batches until `stop` is set."""
        batch = 0
        while not self._stop_sending.is_set():
            batch += 1
            events = [
                FeedbackEvent(user_id=f"s{self._number}", item_id=f"{batch}-{n}", stars=4.0)
                for n in range(_BATCH)
            ]
            self.sent.update(event.event_id for event in events)
            self._record(events)

    def _record(self, events: list[FeedbackEvent]) -> None:
        while not self._stop_sending.is_set():
            try:
                with marquee.Client(
                    self._address(), timeout=_CALL_TIMEOUT_S, health_check=False
                ) as client:
                    answer = client.feedback.record(events)
            except marquee.MarqueeError:
                self.outcome.repeated += 1
                time.sleep(_RETRY_S)
                continue
            assert answer.recorded_count + answer.duplicate_count == len(events)
            self.outcome.unacknowledged += answer.duplicate_count
            self.outcome.acknowledged.update(event.event_id for event in events)
            return


def kill_gateways(
    url: str, folder: Path, kills: int, seed: int, database: PostgreSQL | None = None
) -> Outcome:
    """Kills a gateway repeatedly while four clients record events.

    Args:
        url: URL of the feedback log.
        folder: Folder for the store and the server logs.
        kills: Number of kills.
        seed: Seed of the times of the kills.
        database: A database server to crash instead of the gateway at every other kill; None to
            kill only gateways.
    """
    rng = random.Random(seed)  # noqa: S311 - not for cryptography
    options = {"store": str(folder / "store"), "feedback": url}
    log = folder / "gateway.log"
    gateway = ServiceProcess(GATEWAY, options, log)
    address = gateway.address
    stop = threading.Event()
    senders = [_Sender(number, lambda: address, stop) for number in range(_SENDERS)]
    total = Outcome()
    try:
        for sender in senders:
            sender.start()
        while total.kills < kills:
            if total.kills % _KILLS_PER_ANSWER == 0:
                _wait_for_an_answer(senders)
            time.sleep(rng.uniform(0.0, _MAX_LIFE_S))
            total.kills += 1
            if database is not None and total.kills % 2 == 0:
                database.kill()
                database.start()
            else:
                gateway.kill()
                gateway = ServiceProcess(GATEWAY, options, log, listen=address)
    finally:
        stop.set()
        for sender in senders:
            sender.join()
        gateway.stop()
    with EventLog(url, _CALL_TIMEOUT_S) as reader:
        counts = Counter(
            entry.event.event_id
            for entry in reader.entries()
            if entry.type is EntryType.EVENT and entry.event is not None
        )
    for sender in senders:
        total.acknowledged |= sender.outcome.acknowledged
        total.repeated += sender.outcome.repeated
        total.unacknowledged += sender.outcome.unacknowledged
    total.lost = total.acknowledged - counts.keys()
    total.duplicated = {key for key, count in counts.items() if count > 1}
    total.unknown = counts.keys() - set().union(*(sender.sent for sender in senders))
    return total


def _wait_for_an_answer(senders: Sequence[_Sender]) -> None:
    """Waits until another event has been acknowledged, however slow the machine is."""

    def acknowledged() -> int:
        return sum(len(sender.outcome.acknowledged) for sender in senders)

    before = acknowledged()
    wait_until(lambda: acknowledged() > before, what="an acknowledged event")


def main() -> int:
    """Runs the long form on SQLite and, if it is installed, on PostgreSQL.

    Both run at the same time, because neither verdict depends on speed. The exit status is 0 if no
    event was lost or recorded twice.
    """
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="kills for each database")
    parser.add_argument("--seed", type=int, default=0, help="seed of the times of the kills")
    arguments = parser.parse_args()
    programs_folder = programs()
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(2) as pool:
        running = {"SQLite": pool.submit(_kill_on_sqlite, Path(name), arguments)}
        if programs_folder is not None:
            running["PostgreSQL"] = pool.submit(
                _kill_on_postgresql, programs_folder, Path(name), arguments
            )
        failed = [_report(name, outcome.result()) for name, outcome in running.items()]
    if programs_folder is None:
        sys.stdout.write("PostgreSQL: not installed\n")
    return int(any(failed))


def _kill_on_sqlite(folder: Path, arguments: argparse.Namespace) -> Outcome:
    own = folder / "sqlite"
    own.mkdir()
    url = f"sqlite:///{own / 'feedback.sqlite'}"
    return kill_gateways(url, own, arguments.kills, arguments.seed)


def _kill_on_postgresql(
    programs_folder: Path, folder: Path, arguments: argparse.Namespace
) -> Outcome:
    own = folder / "postgresql"
    own.mkdir()
    server = PostgreSQL(programs_folder)
    try:
        return kill_gateways(server.new_database(), own, arguments.kills, arguments.seed, server)
    finally:
        server.stop()


def _report(name: str, outcome: Outcome) -> bool:
    sys.stdout.write(f"{name}: {outcome}\n")
    sys.stdout.flush()
    return bool(outcome.lost or outcome.duplicated or outcome.unknown or not outcome.acknowledged)


if __name__ == "__main__":
    interrupt_on_sigterm()
    sys.exit(main())
