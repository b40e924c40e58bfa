"""A living system for the faults: gateways with a log, and users who read and record."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import marquee
from faults.callers import CALL_TIMEOUT_S
from marquee import FeedbackEvent
from marquee_core.experiments.experiment import Arm, Experiment
from marquee_core.experiments.store import ExperimentStore
from marquee_core.feedback.events import EntryType
from marquee_core.feedback.log import EventLog
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import GATEWAY
from marquee_services.processes import ServiceProcess
from toy.experiments import toy_experiment
from toy.release import ITEMS, publish_toy

_RETRY_S = 0.02


class FeedbackSystem:
    """A release that needs no backend, in a store of its own, and gateways with a log."""

    def __init__(self, url: str, folder: Path) -> None:
        """Publishes the release.

        Args:
            url: The feedback log.
            folder: An empty folder.
        """
        self.url = url
        self.folder = folder
        self.store = ReleaseStore(str(folder / "store"))
        self.release_id = publish_toy(self.store, folder / "made", backends=()).release_id
        self.store.promote(self.release_id)
        self._running: list[ServiceProcess] = []

    def gateway(self, listen: str = "127.0.0.1:0") -> ServiceProcess:
        """Starts a gateway."""
        options = {
            "store": self.store.url,
            "cache-dir": str(self.folder / "cache"),
            "feedback": self.url,
            "poll-interval": "0.1",
            "experiment-count-interval": "0.1",
        }
        log = self.folder / f"gateway-{len(self._running)}.log"
        self._running.append(ServiceProcess(GATEWAY, options, log, listen))
        return self._running[-1]

    def experiment(self) -> Experiment:
        """Starts an experiment of the release against popularity."""
        arms = (
            Arm("control", self.release_id, 50.0),
            Arm("popular", self.release_id, 50.0, {"popularity": 1.0}),
        )
        experiment = toy_experiment(*arms)
        ExperimentStore(self.store).start(experiment)
        return experiment

    def events(self) -> Counter[tuple[str, str]]:
        """How often the log holds each event, by user and key."""
        with EventLog(self.url, CALL_TIMEOUT_S) as log:
            return Counter(
                (entry.event.user_id, entry.event.event_id)
                for entry in log.entries()
                if entry.type is EntryType.EVENT and entry.event is not None
            )

    def stop(self) -> None:
        """Kills the gateways."""
        for process in self._running:
            process.kill()


@contextmanager
def running_feedback_system(url: str, folder: Path) -> Iterator[FeedbackSystem]:
    """A setting whose gateways are killed at the end."""
    system = FeedbackSystem(url, folder)
    try:
        yield system
    finally:
        system.stop()


def client_of(gateway: ServiceProcess) -> marquee.Client:
    """A client of a gateway."""
    return marquee.Client(gateway.address, timeout=CALL_TIMEOUT_S, health_check=False)


class Load:
    """A reader and a writer, each in a thread of its own.

    Attributes:
        lists: Number of lists.
        failed: Number of calls for a list that failed.
        recorded: Number of acknowledged events.
        unavailable: Number of records that were refused as UNAVAILABLE, and repeated.
        other: Number of records that failed otherwise.
        acknowledged: The user and the key of each acknowledged event.
        error: The last unexpected error.
    """

    def __init__(self, gateway: ServiceProcess, experiment: Experiment) -> None:
        self._gateway = gateway
        self._experiment = experiment
        self._stopped = threading.Event()
        self._threads = [threading.Thread(target=t, daemon=True) for t in (self._read, self._write)]
        self.lists = self.failed = self.recorded = self.unavailable = self.other = 0
        self.acknowledged: set[tuple[str, str]] = set()
        self.error = ""

    def start(self) -> None:
        """Starts both."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends both, and waits for them."""
        self._stopped.set()
        for thread in self._threads:
            thread.join()

    def _read(self) -> None:
        number = 0
        with client_of(self._gateway) as client:
            while not self._stopped.is_set():
                number += 1
                try:
                    page = client.recommend(f"u{number % 60}", page_size=5)
                except marquee.MarqueeError as error:
                    self.failed, self.error = self.failed + 1, repr(error)
                    continue
                assert page.source.experiment == self._experiment.name
                self.lists += 1

    def _write(self) -> None:
        number = 0
        with client_of(self._gateway) as client:
            while not self._stopped.is_set():
                number += 1
                user, item = f"w{number % 50}", f"i{number % ITEMS}"
                events = [FeedbackEvent(user_id=user, item_id=item, stars=4.0)]
                # Repeated until it is acknowledged, as the protocol says.
                while not self._stopped.is_set():
                    try:
                        client.feedback.record(events)
                    except marquee.Unavailable:
                        self.unavailable += 1
                        time.sleep(_RETRY_S)
                        continue
                    except marquee.MarqueeError as error:
                        self.other, self.error = self.other + 1, repr(error)
                        continue
                    self.recorded += 1
                    self.acknowledged.add((user, events[0].event_id))
                    break


def feedback_of(client: marquee.Client) -> marquee.FeedbackStatus:
    """How far the gateway has read the log."""
    found = client.status().feedback
    assert found is not None
    return found


def pending_lists(client: marquee.Client) -> int:
    """Lists that the gateway has not written to the log."""
    experiment = client.status().experiment
    return 0 if experiment is None else experiment.pending_list_count
