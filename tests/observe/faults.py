"""The faults that alerts are for. Each is a context: the fault is there until it ends.

What a context yields is a word on what was seen, or nothing.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import psutil

from deploy_check.system import ITEM_IDS, USER_IDS
from marquee import Client, FeedbackEvent
from marquee_core.release.contents import ENSEMBLE, PRECOMPUTED
from marquee_core.service_names import CF, GATEWAY, INFERENCE
from observe.demo import damaged_release
from observe.scene import Scene
from toy.postgresql import PostgreSQL, programs

Cause = Callable[[Scene], AbstractContextManager[str]]

# Of a gateway that few calls overload.
_SMALL = {
    "MARQUEE_GATEWAY_MAX_CALLS": "20",
    "MARQUEE_GATEWAY_MIN_COMPUTING": "20",
    "MARQUEE_GATEWAY_MAX_BATCH": "4",
    "MARQUEE_GATEWAY_MAX_WAITING": "16",
    "MARQUEE_GATEWAY_BACKEND_TIMEOUT": "4",
}
_FLOOD_THREADS = 48
# As with a limit of a tenth of a core.
_RUNS_S, _STOPS_S = 0.02, 0.18
_SCRAPED_S = 2.5
_CRASHES = 3
# One in so many ratings stays what it was.
_INTACT = 40
_FILES, _FILES_USED = 400, 0.88
_EXPIRES_IN, _OLD = timedelta(days=3), timedelta(days=4)
_MANY_USERS, _USERS_IN_A_CALL = 3000, 1000


@dataclass(frozen=True)
class Fault:
    """A fault that is caused for real.

    Attributes:
        what: What is done.
        alerts: The alerts that must fire, all of them.
        cause: Its context.
    """

    what: str
    alerts: tuple[str, ...]
    cause: Cause


class CannotCauseError(RuntimeError):
    """This machine lacks what a fault needs."""


def _visitor(client: Client) -> object:
    """A call that both backends must score."""
    items = random.sample(ITEM_IDS, 5)
    return client.recommend(ratings={item: random.randint(1, 5) for item in items})  # noqa: S311


def _rates_lowest(client: Client) -> object:
    return client.recommend(ratings=dict.fromkeys(random.sample(ITEM_IDS, 5), 1.0))


def _killed(service: str) -> Cause:
    @contextmanager
    def cause(scene: Scene) -> Iterator[str]:
        scene.demo.servers[service].kill()
        try:
            yield ""
        finally:
            scene.demo.servers[service].start()

    return cause


def _frozen(service: str) -> Cause:
    @contextmanager
    def cause(scene: Scene) -> Iterator[str]:
        process = scene.demo.servers[service].process
        process.send_signal(signal.SIGSTOP)
        try:
            yield ""
            if psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
                raise RuntimeError(f"somebody else let the {service} service run on")
        finally:
            process.send_signal(signal.SIGCONT)

    return cause


@contextmanager
def _crashes(scene: Scene) -> Iterator[str]:
    for _ in range(_CRASHES):
        time.sleep(_SCRAPED_S)
        scene.restart(INFERENCE)
    yield f"{_CRASHES} restarts"


@contextmanager
def _files_limited(scene: Scene) -> Iterator[str]:
    """Lowers the limit of files, and opens connections until little of it is left."""
    process = scene.demo.servers[GATEWAY].process.pid
    used = len(os.listdir(f"/proc/{process}/fd"))
    before = resource.prlimit(process, resource.RLIMIT_NOFILE)
    host, _, port = scene.demo.address.rpartition(":")
    resource.prlimit(process, resource.RLIMIT_NOFILE, (_FILES, before[1]))
    try:
        with ExitStack() as stack:
            for _ in range(int(_FILES * _FILES_USED) - used):
                stack.enter_context(socket.create_connection((host, int(port))))
            yield f"{_FILES} files are allowed"
    finally:
        resource.prlimit(process, resource.RLIMIT_NOFILE, before)


@contextmanager
def _certificates_expire(scene: Scene) -> Iterator[str]:
    scene.demo.secrets.write(_EXPIRES_IN)
    try:
        yield ""
    finally:
        scene.demo.secrets.write()


@contextmanager
def _small_gateway(scene: Scene) -> Iterator[None]:
    scene.restart(GATEWAY, _SMALL)
    try:
        yield
    finally:
        scene.restart(GATEWAY)


@contextmanager
def _flooded(scene: Scene) -> Iterator[str]:
    """Calls from many threads at once, far more than the gateway admits."""
    with _small_gateway(scene), scene.calling(_FLOOD_THREADS, _visitor):
        yield ""


@contextmanager
def _starved(scene: Scene) -> Iterator[str]:
    """The backends get too little CPU for what they are asked."""
    with (
        _small_gateway(scene),
        scene.starved(CF, _RUNS_S, _STOPS_S),
        scene.starved(INFERENCE, _RUNS_S, _STOPS_S),
        scene.calling(_FLOOD_THREADS, _visitor),
    ):
        yield ""


@contextmanager
def _damaged(scene: Scene) -> Iterator[str]:
    with damaged_release(scene.demo):
        yield ""


def _negate(folder: Path) -> None:
    """Lets a release predict the opposite."""
    rows = json.loads((folder / ENSEMBLE).read_text())
    for row in rows:
        weights = row["rating"]["weights"]
        row["rating"]["weights"] = {name: -weight for name, weight in weights.items()}
    (folder / ENSEMBLE).write_text(json.dumps(rows))
    shutil.rmtree(folder / PRECOMPUTED, ignore_errors=True)


@contextmanager
def _held_back(scene: Scene) -> Iterator[str]:
    """The gate refuses a release; it allows the next one."""
    said = scene.refusal(scene.publish(_negate))
    try:
        yield said
    finally:
        scene.ask_gate(scene.publish())


@contextmanager
def _bad_release(scene: Scene) -> Iterator[str]:
    bad = scene.publish(_negate)
    with scene.forced(bad):
        yield ""


@contextmanager
def _broken_feed(scene: Scene) -> Iterator[str]:
    """Nearly all ratings are the lowest; what was trained on them is forced past the gate."""

    def lowest(lines: list[str]) -> list[str]:
        rows = [line.split(",") for line in lines]
        return [
            ",".join([user, item, stars if number % _INTACT == 0 else "1", at])
            for number, (user, item, stars, at) in enumerate(rows)
        ]

    bad = scene.train(lowest)
    said = scene.refusal(bad)
    # What users say meanwhile comes through the same feed; what they said before would be believed.
    with scene.forced(bad), scene.load.paused(), scene.calling(2, _rates_lowest):
        yield said


@contextmanager
def _old_release(scene: Scene) -> Iterator[str]:
    with scene.forced(scene.publish(age=_OLD)):
        yield ""


@contextmanager
def _stale_volume(scene: Scene) -> Iterator[str]:
    """A second gateway sees the store as it was before a promotion."""
    stale = scene.demo.place.folder / "stale-store"
    shutil.copytree(scene.demo.place.volume("/store"), stale)
    with scene.second_gateway(stale), scene.forced(scene.publish()):
        yield ""


@contextmanager
def _store_away(scene: Scene) -> Iterator[str]:
    """Takes the volume of the store away."""
    root = scene.demo.place.volume("/store")
    hidden = root.with_name("store-away")
    root.rename(hidden)
    try:
        yield ""
    finally:
        hidden.rename(root)


@contextmanager
def _filtered(scene: Scene) -> Iterator[str]:
    with scene.calling(2, lambda client: client.recommend(USER_IDS[0], year_min=3000)):
        yield ""


@contextmanager
def _nobody_known(scene: Scene) -> Iterator[str]:
    """Callers lose the ids of their users, so that everybody gets the most popular items."""
    with (
        scene.load.paused(),
        scene.calling(2, lambda client: client.recommend("nobody", page_size=1)),
    ):
        yield ""


@contextmanager
def _full_volume(scene: Scene) -> Iterator[str]:
    """Fills the volume of the feedback log, while users go on giving feedback."""
    if not scene.can_fill:
        raise CannotCauseError("no volume can be mounted here")
    filler = scene.demo.feedback / "filler"
    with filler.open("wb", buffering=0) as stream:
        while True:
            try:
                stream.write(b"\0" * 4096)
            except OSError:
                break
    ratings = dict.fromkeys(ITEM_IDS, 3.0)
    try:
        with scene.calling(1, lambda client: client.feedback.rate(USER_IDS[0], ratings)):
            yield ""
    finally:
        filler.unlink()


@contextmanager
def _database_down(scene: Scene) -> Iterator[str]:
    """The feedback log is in PostgreSQL, which ends."""
    found = programs()
    if found is None:
        raise CannotCauseError("PostgreSQL is not available")
    database = PostgreSQL(found)
    try:
        scene.restart(GATEWAY, {"MARQUEE_FEEDBACK": database.new_database()})
        database.kill()
        try:
            yield ""
        finally:
            database.start()
            _until_caught_up(scene)
            scene.restart(GATEWAY)
    finally:
        database.stop()


def _until_caught_up(scene: Scene) -> None:
    with scene.demo.client() as client:
        while (state := client.status().feedback) is None or not state.healthy:
            time.sleep(0.2)


@contextmanager
def _much_feedback(scene: Scene) -> Iterator[str]:
    """More users give feedback than the gateway has memory for."""
    scene.restart(GATEWAY, {"MARQUEE_GATEWAY_FEEDBACK_MEMORY_MIB": "1"})
    users = [f"new-{number}" for number in range(_MANY_USERS)]
    events = [FeedbackEvent(user_id=user, item_id=ITEM_IDS[0], stars=4.0) for user in users]
    with scene.demo.client() as client:
        for start in range(0, _MANY_USERS, _USERS_IN_A_CALL):
            client.feedback.record(events[start : start + _USERS_IN_A_CALL])
    try:
        yield f"{_MANY_USERS:,} users within 1 MiB"
    finally:
        scene.restart(GATEWAY)


FAULTS = (
    Fault(
        "the CF service is killed",
        (
            "MarqueeServerDown",
            "MarqueeBackendDown",
            "MarqueeDegradedBudgetBurns",
            "MarqueeDegradedBudgetBurnsSlowly",
        ),
        _killed(CF),
    ),
    Fault(
        "the inference service is frozen",
        ("MarqueeServerDown", "MarqueeBackendDown", "MarqueeReplicaUnhealthy"),
        _frozen(INFERENCE),
    ),
    Fault("the gateway is frozen", ("MarqueeServerDown",), _frozen(GATEWAY)),
    Fault("the inference service crashes again and again", ("MarqueeServerRestarts",), _crashes),
    Fault("the gateway may open few files", ("MarqueeFilesRunOut",), _files_limited),
    Fault("certificates are not renewed", ("MarqueeCertificateExpires",), _certificates_expire),
    Fault("the gateway is flooded", ("MarqueeOverloaded",), _flooded),
    Fault(
        "the backends get too little CPU under load",
        (
            "MarqueeQueueFills",
            "MarqueeCallsNearLimit",
            "MarqueeLatencyBudgetBurns",
            "MarqueeLatencyBudgetBurnsSlowly",
        ),
        _starved,
    ),
    Fault(
        "a damaged release is promoted",
        ("MarqueeReleaseRefused", "MarqueeReleaseNotServed"),
        _damaged,
    ),
    Fault(
        "the gate refuses a release that predicts the opposite",
        ("MarqueeReleaseHeldBack",),
        _held_back,
    ),
    Fault(
        "such a release is forced past the gate",
        ("MarqueeReleaseRefused",),
        _bad_release,
    ),
    Fault(
        "a release of a broken feed is forced past the gate",
        ("MarqueePredictionsCollapse",),
        _broken_feed,
    ),
    Fault("the release in service is four days old", ("MarqueeReleaseOld",), _old_release),
    Fault("a gateway reads a stale volume", ("MarqueeReleasesDiffer",), _stale_volume),
    Fault("the store is taken away", ("MarqueeStoreUnreachable",), _store_away),
    Fault("callers' filters leave nothing", ("MarqueeAnswersEmpty",), _filtered),
    Fault("callers lose the ids of users", ("MarqueeOnlyPopularItems",), _nobody_known),
    Fault(
        "the volume of the feedback log is full",
        ("MarqueeErrorBudgetBurns", "MarqueeErrorBudgetBurnsSlowly"),
        _full_volume,
    ),
    Fault("the database of the feedback log ends", ("MarqueeFeedbackLags",), _database_down),
    Fault("more feedback than fits into memory", ("MarqueeFeedbackEvicted",), _much_feedback),
)
