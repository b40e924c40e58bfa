"""Measures title searches in a large catalogue, and how they affect other callers.

`python -m bench.search --titles 1000000` (with `tests` on the path) runs a gateway process with a
release that has no backend models. One client calls GetItem, one call at a time, with and without a
second client that searches. The words in the titles have very different frequencies, and a sixth of
them begin with `t`.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import tempfile
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import click
import grpc
import numpy as np
import psutil

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_core.catalogue import Catalogue, Vocabulary
from marquee_core.output import Output
from marquee_core.ratings import RatingsMatrix
from marquee_core.release.contents import save_data
from marquee_core.release.ensemble import Blend, BlendPair, Ensemble
from marquee_core.release.manifest import DataEntry, Manifest, ModelEntry, hash_folder
from marquee_core.release.store import ReleaseStore
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.scorer import ReleaseData
from marquee_core.service_names import GATEWAY
from marquee_services.processes import ServiceProcess

_RELEASE_ID = "20260101T000000Z-00000000"
_USERS, _WORDS = 1_000, 200_000
_LETTERS = "abcdefghijklmnopqrstuvwxyz"
# The percentage of English words that begin with each letter.
_FIRST = [11.7, 4.4, 5.2, 3.2, 2.8, 4, 1.6, 4.2, 7.3, 0.5, 0.9, 2.4, 3.8]
_FIRST += [2.3, 7.6, 4.3, 0.2, 2.8, 6.7, 16, 1.2, 0.8, 5.5, 0.1, 0.8, 0.1]
_TIMEOUT_S = 30.0


def synthetic_titles(count: int, rng: np.random.Generator) -> list[str]:
    """Makes titles of one to six words, whose frequencies follow a power law as in a language."""
    first = rng.choice(list(_LETTERS), _WORDS, p=np.array(_FIRST) / sum(_FIRST))
    rest = ["".join(rng.choice(list(_LETTERS), length)) for length in rng.integers(1, 9, _WORDS)]
    words = np.char.add(first, np.array(rest))
    frequency = 1 / np.arange(1, _WORDS + 1) ** 0.9
    lengths = rng.integers(1, 7, count)
    drawn = words[rng.choice(_WORDS, lengths.sum(), p=frequency / frequency.sum())].tolist()
    ends = np.cumsum(lengths).tolist()
    return [" ".join(drawn[e - n : e]) for e, n in zip(ends, lengths.tolist(), strict=True)]


def publish(folder: Path, count: int) -> ReleaseStore:
    """Publishes and promotes a release with many titles that only needs the gateway."""
    rng = np.random.default_rng(0)
    users = Vocabulary.of(f"u{n}" for n in range(_USERS))
    items = Vocabulary.of(f"{n:08d}" for n in range(count))
    catalogue = Catalogue.of(
        items, synthetic_titles(count, rng), [2000] * count, [["Drama"]] * count
    )
    each = min(100, count)
    rated = np.concatenate([rng.choice(count, each, replace=False) for _ in range(_USERS)])
    matrix = RatingsMatrix.of(
        np.repeat(np.arange(_USERS, dtype=np.int32), each),
        rated.astype(np.int32),
        rng.integers(1, 6, len(rated)).astype(np.float32),
        _USERS,
        count,
    )
    data = ReleaseData(matrix, Baseline.fit(matrix, 5.0, 5.0, 1))
    pair = BlendPair(Blend({"baseline": 1.0}, 0.0), Blend({"popularity": 1.0}, 0.0))
    vectors = np.ones((count, 1), np.float32)
    save_data(folder / "made", users, catalogue, data, vectors, Ensemble({frozenset(): pair}))
    store = ReleaseStore(str(folder / "store"))
    entry = DataEntry("made", "0" * 64, _USERS, count, len(rated), 1.0, 5.0, catalogue.genres)
    models = (
        ModelEntry("baseline", GATEWAY, Output.STARS, "0" * 12, {}, {}),
        ModelEntry("popularity", GATEWAY, Output.AFFINITY, "0" * 12, {}, {}),
    )
    files = hash_folder(folder / "made")
    manifest = Manifest(_RELEASE_ID, "2026-01-01T00:00:00+00:00", entry, models, {}, {}, files)
    store.publish(folder / "made", manifest)
    store.promote(_RELEASE_ID)
    return store


def search(address: str, queries: Sequence[str], begin: Event, stop: Event, found: Any) -> None:
    """Makes search calls one after another until `stop` is set, and sends their durations.

    Args:
        address: The gateway's address.
        queries: The queries, used in turn; empty to call GetItem instead.
        begin: Set when the calls start.
        stop: Ends the calls.
        found: The connection for the list of durations in seconds.
    """
    seconds: list[float] = []
    with grpc.insecure_channel(address) as channel:
        stub: Any = RecommenderServiceStub(channel)
        stub.SearchItems(pb.SearchItemsRequest(query="a"), timeout=_TIMEOUT_S)
        begin.set()
        while not stop.is_set():
            query = queries[len(seconds) % len(queries)] if queries else ""
            start = time.perf_counter()
            if query:
                stub.SearchItems(pb.SearchItemsRequest(query=query), timeout=_TIMEOUT_S)
            else:
                stub.GetItem(pb.GetItemRequest(item_id=f"{0:08d}"), timeout=_TIMEOUT_S)
            seconds.append(time.perf_counter() - start)
    found.send(seconds)


def look_up(stub: Any, count: int, duration_s: float) -> list[float]:
    """Calls GetItem for random items for some time, and returns the durations in seconds."""
    seconds: list[float] = []
    end = time.perf_counter() + duration_s
    while time.perf_counter() < end:
        request = pb.GetItemRequest(item_id=f"{random.randrange(count):08d}")  # noqa: S311
        start = time.perf_counter()
        stub.GetItem(request, timeout=_TIMEOUT_S)
        seconds.append(time.perf_counter() - start)
    return seconds


def measure(address: str, count: int, rounds: int, seconds: float) -> None:
    """Prints the latencies of GetItem without and with a second client, in alternating rounds."""
    context = multiprocessing.get_context("spawn")
    sets: dict[str, Sequence[str]] = {"reference": (), "one letter": _LETTERS}
    sets |= {"two letters": ["th", "st", "an", "be", "of", "wa"], "the letter t": ["t"]}
    with grpc.insecure_channel(address) as channel:
        stub: Any = RecommenderServiceStub(channel)
        look_up(stub, count, 0.5)
        for name, queries in sets.items():
            without, during, searches = list[float](), list[float](), list[float]()
            for _ in range(rounds):
                without += look_up(stub, count, seconds)
                begin, stop = context.Event(), context.Event()
                receiver, sender = context.Pipe(duplex=False)
                arguments = address, queries, begin, stop, sender
                process = context.Process(target=search, args=arguments)
                process.start()
                begin.wait(_TIMEOUT_S)
                during += look_up(stub, count, seconds)
                stop.set()
                searches += receiver.recv()
                process.join()
            click.echo(f"{name}: {len(searches)} calls, ms {_quantiles(searches)}")
            click.echo(f"  GetItem without them: ms {_quantiles(without)}")
            click.echo(f"  GetItem during them:  ms {_quantiles(during)}")
            click.echo(f"  ratio of p50: {np.median(during) / np.median(without):.2f}")


def _quantiles(seconds: list[float]) -> str:
    p50, p99 = 1000 * np.quantile(seconds, [0.5, 0.99])
    return f"p50 {p50:.2f}, p99 {p99:.2f}"


def main() -> None:
    """Parses the arguments, runs the gateway and measures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--titles", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = publish(folder, options.titles)
        flags = {"store": store.url, "cache-dir": str(folder / "cache")}
        start = time.perf_counter()
        gateway = ServiceProcess(GATEWAY, flags, folder / "gateway.log")
        try:
            gateway.wait_until_serving()
            click.echo(f"{options.titles:,} titles, load average {os.getloadavg()[0]:.1f}")
            memory = psutil.Process(gateway.pid).memory_info().rss / 2**20
            click.echo(
                f"serving after {time.perf_counter() - start:.1f} s, {memory:.0f} MiB resident"
            )
            measure(gateway.address, options.titles, options.rounds, options.seconds)
            click.echo(f"load average {os.getloadavg()[0]:.1f}")
        finally:
            gateway.stop()


if __name__ == "__main__":
    main()
