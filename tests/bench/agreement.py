"""Compares a server's answers with those from scoring every item with every model."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import grpc
import numpy as np

from bench.report import Row, Target
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_core.arrays import Float32, Int64
from marquee_core.release.store import ReleaseStore
from marquee_core.scorers.scorer import Scorer
from marquee_core.service_names import BACKENDS, CF, INFERENCE
from marquee_services.cf.models import CF_SCORERS
from marquee_services.gateway.ranking.filters import filter_mask
from marquee_services.gateway.ranking.own_models import own_outputs
from marquee_services.gateway.ranking.subjects import ResolvedSubject, resolve_subject
from marquee_services.gateway.releases.release import GatewayRelease, load_gateway_release
from marquee_services.inference.models import INFERENCE_SCORERS
from marquee_services.scoring.loading import load_engine

_SAME = Target(">=", 98.0)
_STARS = Target("<=", 1e-3)
_QUALITY = Target(">=", 0.995)
_DEPTH = 10
_TIMEOUT_S = 60.0


Agreement = tuple[float, float]
"""The share of the best items that an answer contains, and the largest difference in stars."""


class FullScoring:
    """A release with all its models in this process, scoring every item with every model."""

    def __init__(self, store: ReleaseStore, release_id: str, cache: Path) -> None:
        """Loads the models of all services.

        Args:
            store: The release store.
            release_id: The release.
            cache: Folder for copies of the release's files.
        """
        loaders = {CF: CF_SCORERS, INFERENCE: INFERENCE_SCORERS}
        self.release: GatewayRelease = load_gateway_release(store, release_id, cache)
        self.scorers: dict[str, Scorer] = {}
        for backend in BACKENDS:
            engine = load_engine(store, release_id, backend, loaders[backend], cache)
            self.scorers |= engine.scorers

    def outputs(self, subject: ResolvedSubject) -> dict[str, Float32]:
        """Returns the scores of all items by model (float32, items)."""
        scores = {name: s.score(subject.profile)[0] for name, s in self.scorers.items()}
        return own_outputs(self.release, subject, None) | scores

    def best(self, request: pb.RecommendRequest, count: int) -> tuple[Int64, dict[str, Float32]]:
        """Ranks every item with every model.

        Args:
            request: The request.
            count: Number of items to return.

        Returns:
            The indexes of the best items (int64, count), best first, and the scores of all items by
            model (float32, items).
        """
        release = self.release
        subject = resolve_subject(release, request.subject)
        outputs = self.outputs(subject)
        blends = release.ensemble.blends(sorted(release.backends))
        eligible, _ = filter_mask(release, request.options.filter)
        eligible[subject.profile.items] = False
        pool = np.flatnonzero(eligible)
        ranking = blends.ranking.apply(outputs)[pool]
        return pool[np.argsort(-ranking, kind="stable")][:count], outputs

    def compare(self, request: pb.RecommendRequest, answer: pb.RecommendResponse) -> Agreement:
        """Compares an answer with the result of full scoring."""
        release = self.release
        best, outputs = self.best(request, len(answer.items))
        blends = release.ensemble.blends(sorted(release.backends))
        data = release.manifest.data
        stars = np.clip(blends.rating.apply(outputs), data.rating_min, data.rating_max)
        shown = release.catalogue.items.indexes([item.item_id for item in answer.items])
        predicted = np.array([item.predicted_stars for item in answer.items])
        return (
            len(set(shown.tolist()) & set(best.tolist())) / max(1, len(best)),
            float(np.abs(predicted - stars[shown]).max(initial=0.0)),
        )


def quality_row(
    full: FullScoring,
    address: str,
    visitors: Sequence[tuple[pb.RecommendRequest, Collection[str]]],
) -> Row:
    """Compares the NDCG@10 of a server's answers with that of full scoring.

    Args:
        full: The same release, with all models in this process.
        address: The server's host and port.
        visitors: Requests, with the ids of held-out items that the visitor likes.
    """
    ours, theirs = [], []
    with grpc.insecure_channel(address) as channel:
        stub = RecommenderServiceStub(channel)
        for request, liked in visitors:
            answer = stub.Recommend(request, timeout=_TIMEOUT_S)
            if answer.source.degraded:
                continue
            best, _ = full.best(request, _DEPTH)
            ours.append(_ndcg([item.item_id for item in answer.items], liked))
            theirs.append(_ndcg(full.release.catalogue.items.ids(best), liked))
    measured, reference = (
        float(np.mean(values)) if values else np.nan for values in (ours, theirs)
    )
    return Row(
        "visitors with half of a user's ratings: NDCG@10, against full scoring",
        measured,
        "",
        reference,
        measured / reference,
        _QUALITY,
    )


def _ndcg(item_ids: Sequence[str], liked: Collection[str]) -> float:
    """Returns the NDCG@10 of a list with binary relevance."""
    discounts = 1.0 / np.log2(np.arange(2, _DEPTH + 2))
    hits = [item_id in liked for item_id in item_ids[:_DEPTH]]
    return float(discounts[: len(hits)] @ hits / discounts[: len(liked)].sum())


def agreement_rows(
    full: FullScoring, address: str, requests: Mapping[str, Sequence[bytes]]
) -> list[Row]:
    """Calls a server, and compares its answers with those of full scoring.

    Args:
        full: The same release, with all models in this process.
        address: The server's host and port.
        requests: Serialised Recommend requests by kind.
    """
    rows = []
    with grpc.insecure_channel(address) as channel:
        stub = RecommenderServiceStub(channel)
        for kind, messages in requests.items():
            found = []
            for message in messages:
                request = pb.RecommendRequest.FromString(message)
                answer = stub.Recommend(request, timeout=_TIMEOUT_S)
                if not answer.source.degraded:
                    found.append(full.compare(request, answer))
            shares, differences = zip(*found, strict=True) if found else ((), ())
            rows += [
                Row(
                    f"{kind}: items in common with full scoring",
                    100 * float(np.mean(shares)) if shares else float("nan"),
                    "%",
                    target=_SAME,
                ),
                Row(
                    f"{kind}: largest difference in predicted stars",
                    max(differences, default=float("nan")),
                    "stars",
                    target=_STARS,
                ),
            ]
    return rows
