"""Kills gateways that record feedback, and checks the log against what they acknowledged.

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
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import marquee
from marquee import FeedbackEvent
from marquee_core.feedback.events import EntryType
from marquee_core.feedback.log import EventLog
from marquee_core.service_names import GATEWAY
from marquee_services.processes import ServiceProcess
from toy.postgresql import PostgreSQL, programs

_SENDERS = 4
_BATCH = 20
# Generous: a loaded machine takes long to start a process.
_CALL_TIMEOUT_S = 20.0
_RETRY_S = 0.02
# A gateway lives for up to this time, so that kills hit it while it starts, reads and writes.
_LONGEST_LIFE_S = 0.5


@dataclass
class Outcome:
    """What happened.

    Attributes:
        kills: Number of kills.
        acknowledged: The keys of all acknowledged events.
        lost: Acknowledged keys that the log does not hold.
        doubled: Keys that the log holds more than once.
        unknown: Keys in the log that nobody sent.
        repeated: Number of calls that failed and were repeated.
        unacknowledged: Number of repeated events that were recorded the first time.
    """

    kills: int = 0
    acknowledged: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    doubled: set[str] = field(default_factory=set)
    unknown: set[str] = field(default_factory=set)
    repeated: int = 0
    unacknowledged: int = 0

    def __str__(self) -> str:
        return (
            f"{self.kills} kills, {len(self.acknowledged)} events acknowledged, "
            f"{len(self.lost)} lost, {len(self.doubled)} doubled, {len(self.unknown)} unknown; "
            f"{self.repeated} calls repeated, {self.unacknowledged} of their events were recorded "
            "before the kill"
        )


class _Sender(threading.Thread):
    """Records batches one after the other, and repeats each until it is acknowledged.

    The last batch may stay without an acknowledgement when the sender is told to stop.
    """

    def __init__(self, number: int, address: Callable[[], str], stop: threading.Event) -> None:
        super().__init__(name=f"sender-{number}", daemon=True)
        self._number = number
        self._address = address
        self._stop_sending = stop
        self.outcome = Outcome()
        self.sent: set[str] = set()

    def run(self) -> None:
        """Sends until told to stop."""
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
    """Kills a gateway again and again while four clients record events.

    Args:
        url: The feedback log.
        folder: A folder for logs.
        kills: How often the gateway is killed.
        seed: Seed of the moments.
        database: A server to crash in place of the gateway every other time; None for none.
    """
    chance = random.Random(seed)  # noqa: S311 - not for cryptography
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
            time.sleep(chance.uniform(0.0, _LONGEST_LIFE_S))
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
    total.doubled = {key for key, count in counts.items() if count > 1}
    total.unknown = counts.keys() - set().union(*(sender.sent for sender in senders))
    return total


def main() -> int:
    """Runs the long form on SQLite and, if it is installed, on PostgreSQL."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="kills for each database")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    arguments = parser.parse_args()
    failed = False
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "sqlite").mkdir()
        url = f"sqlite:///{folder / 'sqlite' / 'feedback.sqlite'}"
        outcome = kill_gateways(url, folder / "sqlite", arguments.kills, arguments.seed)
        failed |= _report("SQLite", outcome)
        bin_folder = programs()
        if bin_folder is None:
            sys.stdout.write("PostgreSQL: not installed\n")
            return int(failed)
        (folder / "postgresql").mkdir()
        server = PostgreSQL(bin_folder)
        try:
            outcome = kill_gateways(
                server.new_database(),
                folder / "postgresql",
                arguments.kills,
                arguments.seed,
                server,
            )
        finally:
            server.stop()
        failed |= _report("PostgreSQL", outcome)
    return int(failed)


def _report(name: str, outcome: Outcome) -> bool:
    sys.stdout.write(f"{name}: {outcome}\n")
    sys.stdout.flush()
    return bool(outcome.lost or outcome.doubled or outcome.unknown or not outcome.acknowledged)


if __name__ == "__main__":
    sys.exit(main())
