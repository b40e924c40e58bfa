"""Faults in a system with feedback: users' answers and the contents of the log while parts fail.

    python -m faults.feedback_faults

Prints a row for each fault, and fails if one of them is not survived. The tests run shorter forms
of the same functions.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

import marquee
from faults.callers import CALL_TIMEOUT_S
from faults.fault_table import Row, report
from faults.feedback_system import (
    Load,
    client_of,
    feedback_of,
    pending_lists,
    running_feedback_system,
)
from marquee import FeedbackEvent
from marquee_core.feedback.log import EventLog
from marquee_core.release.store import ReleaseStore
from termination import interrupt_on_sigterm
from toy.postgresql import PostgreSQL, programs
from toy.waiting import WAIT_S, wait_until


def database_killed(database: PostgreSQL, folder: Path, outages: int) -> Row:
    """Kills and restarts the database while users get recommendations and record feedback."""
    row = Row("database killed and restarted under load")
    with running_feedback_system(database.new_database(), folder) as system:
        gateway = system.gateway()
        gateway.wait_until_serving()
        experiment = system.experiment()
        with client_of(gateway) as client:
            wait_until(lambda: client.status().experiment is not None, what="the experiment")
            load = Load(gateway, experiment)
            load.start()
            wait_until(
                lambda: load.recorded > 0 and load.lists > 0, what="the first list and record"
            )
            for _ in range(outages):
                _outage(database, client, load)
            load.stop()
            wait_until(lambda: not pending_lists(client), what="counting all lists")
        logged = system.events()
        with EventLog(system.url, CALL_TIMEOUT_S) as log:
            counted = sum(c.lists for c in log.list_counts(experiment.experiment_id))
    row.details = (
        f"{outages} outages: {load.lists:,} lists, {load.failed} failed; "
        f"{load.unavailable} records refused as UNAVAILABLE; {len(load.acknowledged):,} events "
        f"acknowledged"
    )
    row.check(load.failed == 0, f"{load.failed} lists failed: {load.error}")
    row.check(load.other == 0, f"{load.other} records failed with another error: {load.error}")
    row.check(load.acknowledged <= logged.keys(), "an acknowledged event was lost")
    row.check(max(logged.values()) == 1, "an event was recorded twice")
    row.check(counted == load.lists, f"{counted:,} of {load.lists:,} lists were counted")
    return row


def _outage(database: PostgreSQL, client: marquee.Client, load: Load) -> None:
    """Kills the database, waits until the gateway and the users notice, and starts it again."""
    database.kill()
    lists, refused = load.lists, load.unavailable
    wait_until(lambda: not feedback_of(client).healthy, what="an unhealthy feedback status")
    wait_until(lambda: load.lists > lists + 20, what="an answer during the outage")
    wait_until(lambda: load.unavailable > refused, what="a refused record")
    recorded = load.recorded
    database.start()
    wait_until(lambda: load.recorded > recorded, what="a record after the outage")
    wait_until(lambda: feedback_of(client).healthy, what="a healthy feedback status")


def gateway_restarted(url: str, folder: Path, users: int) -> Row:
    """Kills a gateway; once its replacement reports SERVING, it has read the whole log."""
    row = Row("gateway killed and restarted")
    with running_feedback_system(url, folder) as system:
        first, second = system.gateway(), system.gateway()
        for gateway in (first, second):
            gateway.wait_until_serving()
        rated: dict[str, str] = {}
        with client_of(second) as client:
            for number in range(users):
                if number == users // 2:
                    first.kill()
                user = f"n{number}"
                item = client.recommend(user, page_size=1)[0].item_id
                recorded = client.feedback.rate(user, {item: 5.0})
                rated[user] = item
        restarted = system.gateway(first.address)
        restarted.wait_until_serving()
        with client_of(restarted) as client:
            state = feedback_of(client)
            stale = sum(client.recommend(u, page_size=1)[0].item_id == i for u, i in rated.items())
    row.details = (
        f"{users} users rated the top of their list, half of them while the gateway was down; when "
        f"it served again, it had read the log up to position {state.log_position:,}, and {stale} "
        "answers were stale"
    )
    row.check(state.log_position >= recorded.log_position, "it served before it had caught up")
    row.check(stale == 0, f"{stale} answers ignored the user's latest rating")
    return row


def clocks_differ(url: str, folder: Path) -> Row:
    """Records a rating dated a day ahead: a later event still replaces it."""
    row = Row("caller's clock a day fast")
    with running_feedback_system(url, folder) as system:
        gateways = [system.gateway(), system.gateway()]
        ahead = datetime.now(UTC) + timedelta(days=1)
        item = "i1"
        clients = []
        for gateway in gateways:
            gateway.wait_until_serving()
            clients.append(client_of(gateway))
        fast = FeedbackEvent(user_id="n1", item_id=item, stars=5.0, time=ahead)
        clients[0].feedback.record([fast])
        last = clients[1].feedback.rate("n1", {item: 1.0})
        for client in clients:
            _until_read(client, last.log_position)
        with EventLog(system.url, CALL_TIMEOUT_S) as log:
            times = [e.event.time_us for e in log.entries() if e.event is not None]
        seen = [client.recommend("n1", include_seen=True) for client in clients]
        visited = [client.recommend(ratings={item: 1.0}, include_seen=True) for client in clients]
        for client in clients:
            client.close()
    row.details = (
        f"a rating dated a day ahead was stored {(times[1] - times[0]) / 1000:.0f} ms before the "
        "next one, which replaced it in both gateways"
    )
    row.check(times[0] <= times[1], "the rating dated ahead took precedence")
    for answer, expected in zip(seen, visited, strict=True):
        same = [i.item_id for i in answer] == [i.item_id for i in expected]
        row.check(same, "an answer used the rating dated ahead")
    return row


def repeated_and_late(url: str, folder: Path, copies: int) -> Row:
    """Sends the same events repeatedly through both gateways, then events of earlier days."""
    row = Row("duplicate and late events")
    with running_feedback_system(url, folder) as system:
        gateways = [system.gateway(), system.gateway()]
        for gateway in gateways:
            gateway.wait_until_serving()
        now = datetime.now(UTC)
        events = [
            FeedbackEvent(user_id=f"n{n}", item_id="i1", stars=2.0, time=now) for n in range(20)
        ]
        late = [
            FeedbackEvent(
                user_id=f"n{n}", item_id="i1", stars=5.0, time=now - timedelta(days=n + 1)
            )
            for n in range(20)
        ]
        failures: list[str] = []

        def send(number: int) -> None:
            try:
                with client_of(gateways[number % 2]) as client:
                    client.feedback.record(events)
            except marquee.MarqueeError as error:
                failures.append(repr(error))

        threads = [threading.Thread(target=send, args=(number,)) for number in range(copies)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        with client_of(gateways[0]) as client:
            last = client.feedback.record(late)
            _until_read(client, last.log_position)
            wrong = sum(
                [i.item_id for i in client.recommend(f"n{n}")]
                != [i.item_id for i in client.recommend(ratings={"i1": 2.0})]
                for n in range(20)
            )
        logged = system.events()
    row.details = (
        f"20 events sent {copies} times concurrently, then 20 events of earlier days: the log "
        f"holds {sum(logged.values())} events; {wrong} answers used an older rating"
    )
    row.check(not failures, f"{len(failures)} records failed: {failures[:1]}")
    row.check(len(logged) == sum(logged.values()) == 40, "events are missing or recorded twice")
    row.check(wrong == 0, "a late event replaced a newer one")
    return row


class _HeldRatings(ThreadingHTTPServer):
    """An HTTP server that holds back ratings until an event is set, so that a trainer waits.

    Attributes:
        url: URL of the ratings.
        released: Set to serve them.
    """

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        rows = [
            f"u{user},i{item},{1 + (user + item) % 5},{1_000_000 + place}"
            for user in range(60)
            for place, item in enumerate(random.permutation(40)[:20].tolist())
        ]
        content = "\n".join(["user,item,rating,timestamp", *rows]).encode()
        released = threading.Event()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                released.wait(WAIT_S)
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(content)

            def do_HEAD(self) -> None:
                self.do_GET()

            def log_message(self, *_: object) -> None:
                """Discards the log."""

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/ratings.csv"
        self.released = released
        threading.Thread(target=self.serve_forever, daemon=True).start()


def two_trainers(folder: Path) -> Row:
    """Starts two trainers on one store: one trains, and the other names the lease and exits.

    The ratings are held back until one trainer has been refused, so the other cannot finish early.
    """
    row = Row("two concurrent trainers")
    store = folder / "store"
    with _HeldRatings() as ratings:
        command = [
            *(sys.executable, "-m", "marquee.cli", "train", "--store", str(store)),
            *("--models", "ease", "--data", ratings.url),
        ]
        trainers = [
            subprocess.Popen(
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
            )
            for _ in range(2)
        ]
        try:
            wait_until(
                lambda: any(t.poll() is not None for t in trainers), what="the refusal of a trainer"
            )
            exited = [trainer for trainer in trainers if trainer.poll() is not None]
            before = ReleaseStore(str(store)).ids()
            ratings.released.set()
            errors = {trainer: trainer.communicate(timeout=WAIT_S)[1] for trainer in trainers}
        finally:
            for trainer in trainers:
                trainer.kill()
        ratings.shutdown()
    releases = ReleaseStore(str(store))
    production = releases.production()
    published = releases.ids()
    refused, trained = exited[0], next(t for t in trainers if t is not exited[0])
    for release_id in published:
        releases.verify_files(release_id)
    row.details = (
        f"one trainer named the holder of the lease and exited with {refused.returncode}; the "
        f"other exited with {trained.returncode}; releases before: {len(before)}, after: "
        f"{len(published)}"
    )
    row.check(len(exited) == 1, f"both exited before there were ratings: {errors}")
    row.check(refused.returncode == 1, f"the refused trainer exited with {refused.returncode}")
    row.check(
        "has held" in errors[refused],
        f"the refusal does not name the holder of the lease: {errors[refused][-200:]}",
    )
    row.check(len(errors[refused].splitlines()) == 1, "the refusal is longer than a line")
    row.check(trained.returncode == 0, f"the other trainer failed: {errors[trained][-200:]}")
    row.check(not before and len(published) == 1, "not exactly one release was published")
    row.check(
        production is not None and [production.release_id] == published,
        "the release is not in production",
    )
    left = [path.name for path in store.rglob(".partial-*")]
    row.check(not left, f"unfinished files are left: {left}")
    return row


def _until_read(client: marquee.Client, position: int) -> None:
    """Waits until a gateway has read the log up to a position."""
    wait_until(
        lambda: feedback_of(client).log_position >= position, what=f"reading the log to {position}"
    )


def main() -> int:
    """Runs the long forms on PostgreSQL, or on SQLite if PostgreSQL is not installed.

    The exit status is 0 if all faults were survived.
    """
    bin_folder = programs()
    server = PostgreSQL(bin_folder) if bin_folder is not None else None
    rows = []
    with tempfile.TemporaryDirectory() as name:

        def run(fault: Callable[..., Row], *arguments: object, needs_log: bool = True) -> None:
            folder = Path(tempfile.mkdtemp(dir=name))
            url = server.new_database() if server else f"sqlite:///{folder}/feedback.sqlite"
            rows.append(fault(*((url,) if needs_log else ()), folder, *arguments))
            shutil.rmtree(folder)

        try:
            if server is not None:
                folder = Path(tempfile.mkdtemp(dir=name))
                rows.append(database_killed(server, folder, outages=5))
            run(gateway_restarted, 400)
            run(clocks_differ)
            run(repeated_and_late, 24)
            run(two_trainers, needs_log=False)
        finally:
            if server is not None:
                server.stop()
    status = report(rows)
    if server is None:
        sys.stdout.write("PostgreSQL is not installed: outages of the database were not tested\n")
    return status


if __name__ == "__main__":
    interrupt_on_sigterm()
    sys.exit(main())
