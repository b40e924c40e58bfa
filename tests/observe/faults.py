"""The faults behind the alerts. Each is a context manager: the fault lasts until it exits.

A context yields a note to print about the fault, or an empty string.
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
from observe.drill_context import DrillContext
from observe.production import damaged_release
from toy.postgresql import PostgreSQL, programs

Cause = Callable[[DrillContext], AbstractContextManager[str]]

# The settings of a gateway that few calls overload.
_SMALL = {
    "MARQUEE_GATEWAY_MAX_CALLS": "20",
    "MARQUEE_GATEWAY_MIN_COMPUTING": "20",
    "MARQUEE_GATEWAY_MAX_BATCH": "4",
    "MARQUEE_GATEWAY_MAX_WAITING": "16",
    "MARQUEE_GATEWAY_BACKEND_TIMEOUT": "4",
}
_FLOOD_THREADS = 48
# Equivalent to a CPU limit of a tenth of a core.
_RUNS_S, _STOPS_S = 0.02, 0.18
_SCRAPED_S = 2.5
_CRASHES = 3
# One in so many ratings keeps its value.
_INTACT = 40
_FILES, _FILES_USED = 400, 0.88
_EXPIRES_IN, _OLD = timedelta(days=3), timedelta(days=4)
_MANY_USERS, _USERS_IN_A_CALL = 3000, 1000


@dataclass(frozen=True)
class Fault:
    """A fault and the alerts that it must trigger.

    Attributes:
        what: Description of the fault.
        alerts: The alerts, all of which must fire.
        cause: Returns the context manager that causes the fault.
    """

    what: str
    alerts: tuple[str, ...]
    cause: Cause


class UnsupportedFaultError(RuntimeError):
    """A fault cannot be caused on this machine."""


def _visitor(client: Client) -> object:
    """Makes a call for which both backends must compute scores."""
    items = random.sample(ITEM_IDS, 5)
    return client.recommend(ratings={item: random.randint(1, 5) for item in items})  # noqa: S311


def _lowest_visitor(client: Client) -> object:
    """Makes a call for a visitor who gives only the lowest rating."""
    return client.recommend(ratings=dict.fromkeys(random.sample(ITEM_IDS, 5), 1.0))


def _killed(service: str) -> Cause:
    @contextmanager
    def cause(context: DrillContext) -> Iterator[str]:
        context.system.servers[service].kill()
        try:
            yield ""
        finally:
            context.system.servers[service].start()

    return cause


def _frozen(service: str) -> Cause:
    @contextmanager
    def cause(context: DrillContext) -> Iterator[str]:
        process = context.system.servers[service].process
        process.send_signal(signal.SIGSTOP)
        try:
            yield ""
            if psutil.Process(process.pid).status() != psutil.STATUS_STOPPED:
                raise RuntimeError(f"somebody else let the {service} service run on")
        finally:
            process.send_signal(signal.SIGCONT)

    return cause


@contextmanager
def _crashes(context: DrillContext) -> Iterator[str]:
    for _ in range(_CRASHES):
        time.sleep(_SCRAPED_S)
        context.restart(INFERENCE)
    yield f"{_CRASHES} restarts"


@contextmanager
def _files_limited(context: DrillContext) -> Iterator[str]:
    """Lowers the limit of open files, and opens connections until it is nearly reached."""
    process = context.system.servers[GATEWAY].process.pid
    used = len(os.listdir(f"/proc/{process}/fd"))
    before = resource.prlimit(process, resource.RLIMIT_NOFILE)
    host, _, port = context.system.address.rpartition(":")
    resource.prlimit(process, resource.RLIMIT_NOFILE, (_FILES, before[1]))
    try:
        with ExitStack() as stack:
            for _ in range(int(_FILES * _FILES_USED) - used):
                stack.enter_context(socket.create_connection((host, int(port))))
            yield f"limit of {_FILES} open files"
    finally:
        resource.prlimit(process, resource.RLIMIT_NOFILE, before)


@contextmanager
def _certificates_expire(context: DrillContext) -> Iterator[str]:
    context.system.secrets.write(_EXPIRES_IN)
    try:
        yield ""
    finally:
        context.system.secrets.write()


@contextmanager
def _small_gateway(context: DrillContext) -> Iterator[None]:
    context.restart(GATEWAY, _SMALL)
    try:
        yield
    finally:
        context.restart(GATEWAY)


@contextmanager
def _flooded(context: DrillContext) -> Iterator[str]:
    """Calls from many threads concurrently, far more than the gateway admits."""
    with _small_gateway(context), context.calling(_FLOOD_THREADS, _visitor):
        yield ""


@contextmanager
def _starved(context: DrillContext) -> Iterator[str]:
    """Gives the backends too little CPU for their load."""
    with (
        _small_gateway(context),
        context.starved(CF, _RUNS_S, _STOPS_S),
        context.starved(INFERENCE, _RUNS_S, _STOPS_S),
        context.calling(_FLOOD_THREADS, _visitor),
    ):
        yield ""


@contextmanager
def _damaged(context: DrillContext) -> Iterator[str]:
    with damaged_release(context.system):
        yield ""


def _negate(folder: Path) -> None:
    """Negates the weights of a release's rating blend, so that it predicts the opposite."""
    rows = json.loads((folder / ENSEMBLE).read_text())
    for row in rows:
        weights = row["rating"]["weights"]
        row["rating"]["weights"] = {name: -weight for name, weight in weights.items()}
    (folder / ENSEMBLE).write_text(json.dumps(rows))
    shutil.rmtree(folder / PRECOMPUTED, ignore_errors=True)


@contextmanager
def _held_back(context: DrillContext) -> Iterator[str]:
    """Publishes a release that the gate refuses, and at the end one that it promotes."""
    output = context.refusal(context.publish(_negate))
    try:
        yield output
    finally:
        context.promote_with_gate(context.publish())


@contextmanager
def _bad_release(context: DrillContext) -> Iterator[str]:
    bad = context.publish(_negate)
    with context.forced(bad):
        yield ""


@contextmanager
def _broken_feed(context: DrillContext) -> Iterator[str]:
    """Promotes a release trained on ratings that are nearly all the lowest, past the gate."""

    def lowest(lines: list[str]) -> list[str]:
        rows = [line.split(",") for line in lines]
        return [
            ",".join([user, item, stars if number % _INTACT == 0 else "1", at])
            for number, (user, item, stars, at) in enumerate(rows)
        ]

    bad = context.train(lowest)
    output = context.refusal(bad)
    # Users' new ratings come through the same broken feed; their earlier ratings would be correct.
    with context.forced(bad), context.load.paused(), context.calling(2, _lowest_visitor):
        yield output


@contextmanager
def _old_release(context: DrillContext) -> Iterator[str]:
    with context.forced(context.publish(age=_OLD)):
        yield ""


@contextmanager
def _stale_volume(context: DrillContext) -> Iterator[str]:
    """Runs a second gateway that sees the store as it was before a promotion."""
    stale = context.system.workspace.folder / "stale-store"
    shutil.copytree(context.system.workspace.volume("/store"), stale)
    with context.second_gateway(stale), context.forced(context.publish()):
        yield ""


@contextmanager
def _store_removed(context: DrillContext) -> Iterator[str]:
    """Removes the store's volume."""
    root = context.system.workspace.volume("/store")
    hidden = root.with_name("store-removed")
    root.rename(hidden)
    try:
        yield ""
    finally:
        hidden.rename(root)


@contextmanager
def _filtered(context: DrillContext) -> Iterator[str]:
    with context.calling(2, lambda client: client.recommend(USER_IDS[0], year_min=3000)):
        yield ""


@contextmanager
def _unknown_users(context: DrillContext) -> Iterator[str]:
    """Calls without known user ids, so that all users get the most popular items."""
    with (
        context.load.paused(),
        context.calling(2, lambda client: client.recommend("nobody", page_size=1)),
    ):
        yield ""


@contextmanager
def _full_volume(context: DrillContext) -> Iterator[str]:
    """Fills the volume of the feedback log while users keep giving feedback."""
    if not context.can_fill:
        raise UnsupportedFaultError("mounting a volume is not permitted")
    filler = context.system.feedback / "filler"
    with filler.open("wb", buffering=0) as stream:
        while True:
            try:
                stream.write(b"\0" * 4096)
            except OSError:
                break
    ratings = dict.fromkeys(ITEM_IDS, 3.0)
    try:
        with context.calling(1, lambda client: client.feedback.rate(USER_IDS[0], ratings)):
            yield ""
    finally:
        filler.unlink()


@contextmanager
def _database_down(context: DrillContext) -> Iterator[str]:
    """Moves the feedback log to PostgreSQL, and kills the database."""
    found = programs()
    if found is None:
        raise UnsupportedFaultError("PostgreSQL is not available")
    database = PostgreSQL(found)
    try:
        context.restart(GATEWAY, {"MARQUEE_FEEDBACK": database.new_database()})
        database.kill()
        try:
            yield ""
        finally:
            database.start()
            _until_caught_up(context)
            context.restart(GATEWAY)
    finally:
        database.stop()


def _until_caught_up(context: DrillContext) -> None:
    with context.system.client() as client:
        while (state := client.status().feedback) is None or not state.healthy:
            time.sleep(0.2)


@contextmanager
def _much_feedback(context: DrillContext) -> Iterator[str]:
    """Records feedback of more users than the gateway has memory for."""
    context.restart(GATEWAY, {"MARQUEE_GATEWAY_FEEDBACK_MEMORY_MIB": "1"})
    users = [f"new-{number}" for number in range(_MANY_USERS)]
    events = [FeedbackEvent(user_id=user, item_id=ITEM_IDS[0], stars=4.0) for user in users]
    with context.system.client() as client:
        for start in range(0, _MANY_USERS, _USERS_IN_A_CALL):
            client.feedback.record(events[start : start + _USERS_IN_A_CALL])
    try:
        yield f"{_MANY_USERS:,} users in 1 MiB"
    finally:
        context.restart(GATEWAY)


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
    Fault("the inference service crashes repeatedly", ("MarqueeServerRestarts",), _crashes),
    Fault("the gateway's limit of open files is low", ("MarqueeFilesRunOut",), _files_limited),
    Fault("certificates are not renewed", ("MarqueeCertificateExpires",), _certificates_expire),
    Fault("the gateway is flooded", ("MarqueeOverloaded",), _flooded),
    Fault(
        "the backends are short of CPU under load",
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
        "the gate refuses a release with negated predictions",
        ("MarqueeReleaseHeldBack",),
        _held_back,
    ),
    Fault(
        "a release with negated predictions is promoted past the gate",
        ("MarqueeReleaseRefused",),
        _bad_release,
    ),
    Fault(
        "a release trained on a broken feed is promoted past the gate",
        ("MarqueePredictionsCollapse",),
        _broken_feed,
    ),
    Fault("the release in service is four days old", ("MarqueeReleaseOld",), _old_release),
    Fault("a gateway reads a stale volume", ("MarqueeReleasesDiffer",), _stale_volume),
    Fault("the store's volume is removed", ("MarqueeStoreUnreachable",), _store_removed),
    Fault("callers' filters exclude all items", ("MarqueeAnswersEmpty",), _filtered),
    Fault("callers lose their user ids", ("MarqueeOnlyPopularItems",), _unknown_users),
    Fault(
        "the volume of the feedback log is full",
        ("MarqueeErrorBudgetBurns", "MarqueeErrorBudgetBurnsSlowly"),
        _full_volume,
    ),
    Fault("the feedback database is down", ("MarqueeFeedbackLags",), _database_down),
    Fault("more feedback than fits in memory", ("MarqueeFeedbackEvicted",), _much_feedback),
)
