"""The system under test for feedback faults: gateways with a feedback log, and their users."""

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
    """A private store with a release that needs no backends, and gateways with a feedback log."""

    def __init__(self, url: str, folder: Path) -> None:
        """Publishes the release.

        Args:
            url: URL of the feedback log.
            folder: An empty folder.
        """
        self.url = url
        self.folder = folder
        self.store = ReleaseStore(str(folder / "store"))
        self.release_id = publish_toy(self.store, folder / "made", backends=()).release_id
        self.store.promote(self.release_id)
        self._running: list[ServiceProcess] = []

    def gateway(self, listen: str = "127.0.0.1:0") -> ServiceProcess:
        """Starts a gateway, and returns its process."""
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
        """Starts an experiment that compares the release with popularity, and returns it."""
        arms = (
            Arm("control", self.release_id, 50.0),
            Arm("popular", self.release_id, 50.0, {"popularity": 1.0}),
        )
        experiment = toy_experiment(*arms)
        ExperimentStore(self.store).start(experiment)
        return experiment

    def events(self) -> Counter[tuple[str, str]]:
        """Counts the events in the log by user id and event id."""
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
    """Yields a system, and kills its gateways at the end."""
    system = FeedbackSystem(url, folder)
    try:
        yield system
    finally:
        system.stop()


def client_of(gateway: ServiceProcess) -> marquee.Client:
    """Returns a client for a gateway."""
    return marquee.Client(gateway.address, timeout=CALL_TIMEOUT_S, health_check=False)


class Load:
    """Two threads: one gets recommendations, the other records feedback.

    Attributes:
        lists: Number of lists returned.
        failed: Number of failed calls for a list.
        recorded: Number of acknowledged events.
        unavailable: Number of records that were refused as UNAVAILABLE and retried.
        other: Number of records that failed with another error.
        acknowledged: User id and event id of each acknowledged event.
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
        """Starts both threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Stops both threads, and waits for them."""
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
                # Retried until it is acknowledged, as the API documents.
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
    """Returns the feedback part of the gateway's status."""
    status = client.status().feedback
    assert status is not None
    return status


def pending_lists(client: marquee.Client) -> int:
    """Returns the number of lists that the gateway has not yet written to the log."""
    experiment = client.status().experiment
    return 0 if experiment is None else experiment.pending_list_count
