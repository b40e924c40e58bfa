"""Measures computed answers with large catalogues, against the trained release."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence

import grpc

from bench.computed_requests import computed_requests
from bench.context import PAGE_SIZE, RECOMMEND_PATH, Context, median
from bench.generator import Load
from bench.load import LoadPlan
from bench.processes import Services
from bench.report import Row, Table, Target
from bench.scaled_release import NARROW_YEAR, Scale, scale_release
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_core.release.manifest import Manifest
from marquee_core.release.store import ReleaseStore

_AGAINST_SMALL = Target("<=", 3.0)
_HUGE, _AGAINST_WIDE = Target("<=", 60.0), Target("<=", 3.0)
_IN_FLIGHT, _LOADED = 8, Target("<=", 4.0)
_REQUESTS, _WARM_UP, _SEED, _TIMEOUT_S = 200, 50, 2, 30.0
_VISITORS, _KNOWN = "visitors with 30 ratings", "known users with fresh ratings"
_FILTERED, _NARROW = "known users, genre filter", "known users, filter that 0.1 % of items pass"
_OPTIONS = {"answer-cache-mib": "0", "no-precomputed-pages": None}
# From this size on, users have fewer ratings, Bayesian MF has fewer samples, and known users are
# folded in on request, so that the release fits into the memory of a small machine.
_HUGE_ITEMS = 500_000
_FEW_RATINGS, _FEW_SAMPLES, _ALL_RATINGS, _SAMPLES = 30, 8, 10_000, 60


def measure(context: Context) -> Table:
    """Measures the services with a scaled release of each size, one after another."""
    rows: list[Row] = []
    notes = ["each item and user of the trained release is copied with all models' parameters"]
    reference = _latencies(context, context.store, context.manifest, "reference")
    for items, users in context.config.large_sizes:
        name = f"{users:,} users × {items:,} items"
        is_huge = items >= _HUGE_ITEMS
        folder = context.folder / f"scaled-{items}"
        shutil.rmtree(folder, ignore_errors=True)
        kept = (_FEW_RATINGS, _FEW_SAMPLES) if is_huge else (_ALL_RATINGS, _SAMPLES)
        scale = Scale(items, users, *kept, fold_on_request=is_huge)
        try:
            context.on_step(f"make a release of {name}")
            store, manifest = scale_release(
                context.store, context.manifest, scale, folder, context.folder / "cache"
            )
            measured = _latencies(context, store, manifest, name)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        rows += _rows(name, measured, reference, _HUGE if is_huge else _AGAINST_SMALL, is_huge)
        if is_huge:
            notes.append(
                f"{name}: users have at most {scale.ratings} ratings; Bayesian MF has "
                f"{scale.samples} samples; known users are folded in on request"
            )
    return Table("Computed answers in large catalogues", rows, [*notes, *context.take_notes()])


def _rows(
    name: str,
    measured: Mapping[tuple[str, int], float],
    reference: Mapping[tuple[str, int], float],
    target: Target,
    is_absolute: bool,
) -> list[Row]:
    """Returns the rows of one size.

    Args:
        name: The size, for the rows.
        measured: The median latency in ms by the kind of request and the calls in flight.
        reference: The same for the trained release.
        target: The target of an unloaded call.
        is_absolute: Whether it applies to the milliseconds instead of the ratio.
    """
    rows = []
    for kind in (_VISITORS, _KNOWN, _FILTERED):
        alone, small = measured[kind, 1], reference[kind, 1]
        ratio = None if is_absolute else alone / small
        figure = f"{name}, {kind}: unloaded p50"
        rows.append(Row(figure, alone, "ms", None if is_absolute else small, ratio, target))
    narrow, wide = measured[_NARROW, 1], measured[_FILTERED, 1]
    figure = f"{name}, {_NARROW}: unloaded p50"
    rows.append(Row(figure, narrow, "ms", wide, narrow / wide, _AGAINST_WIDE))
    alone, loaded = measured[_VISITORS, 1], measured[_VISITORS, _IN_FLIGHT]
    figure = f"{name}, {_VISITORS}: p50 with {_IN_FLIGHT} in flight"
    rows.append(Row(figure, loaded, "ms", alone, loaded / alone, _LOADED))
    return rows


def _latencies(
    context: Context, store: ReleaseStore, manifest: Manifest, name: str
) -> dict[tuple[str, int], float]:
    """Measures the median latency in ms, by the kind of request and the number of calls in flight.

    Raises:
        RuntimeError: A page is not full.
    """
    context.on_step(f"{name}: start the services")
    is_reference = manifest is context.manifest
    kinds = _requests(store, manifest)
    if is_reference:
        del kinds[_NARROW]  # Too few of its items pass to fill a page.
    copies = context.folder / f"copies-{manifest.data.item_count}"
    loads: dict[tuple[str, int], list[Load]] = {}
    try:
        with Services(
            store.url, context.folder / "logs", _OPTIONS, {"cache-dir": str(copies)}
        ) as services:
            if not is_reference:
                _check_pages(services.gateway.address, kinds)
            for number in range(1, context.config.rounds + 1):
                for kind, in_flight in (*((kind, 1) for kind in kinds), (_VISITORS, _IN_FLIGHT)):
                    context.on_step(f"{name}, {kind}, round {number} of {context.config.rounds}")
                    plan = LoadPlan(
                        services.gateway.address,
                        RECOMMEND_PATH,
                        in_flight,
                        warm_s=context.config.warm_s,
                        seconds=2 * context.config.unloaded_s,
                    )
                    load = context.generator.run(plan, kinds[kind], services.pids, "recommend")
                    context.check(f"{name}, {kind}, {in_flight} in flight", load)
                    loads.setdefault((kind, in_flight), []).append(load)
    finally:
        shutil.rmtree(copies, ignore_errors=True)
    return {key: 1e3 * median([load.p50_s for load in found]) for key, found in loads.items()}


def _check_pages(address: str, kinds: Mapping[str, Sequence[bytes]]) -> None:
    """Checks that requests of each kind get a full page from the whole ensemble.

    The first calls may time out, while parameters are read from the disk.

    Raises:
        RuntimeError: A page is not full, or the answer is degraded.
    """
    with grpc.insecure_channel(address) as channel:
        stub = RecommenderServiceStub(channel)
        for kind, messages in kinds.items():
            for message in messages[:_WARM_UP]:
                request = pb.RecommendRequest.FromString(message)
                answer = stub.Recommend(request, timeout=_TIMEOUT_S)
                if not answer.source.degraded:
                    break
            if len(answer.items) != PAGE_SIZE or answer.source.degraded:
                raise RuntimeError(f"{kind}: {len(answer.items)} items: {answer.source}")


def _requests(store: ReleaseStore, manifest: Manifest) -> dict[str, Sequence[bytes]]:
    """Makes the requests of each kind."""
    made = computed_requests(store, manifest, _REQUESTS, _SEED)
    kinds: dict[str, Sequence[bytes]] = {
        kind: made[kind] for kind in (_VISITORS, _KNOWN, _FILTERED)
    }
    kinds[_NARROW] = [_narrowed(message) for message in made[_FILTERED]]
    return kinds


def _narrowed(message: bytes) -> bytes:
    """Replaces the genres of a request's filter by years that few items have."""
    request = pb.RecommendRequest.FromString(message)
    request.options.filter.Clear()
    request.options.filter.year_max = NARROW_YEAR
    return request.SerializeToString()
