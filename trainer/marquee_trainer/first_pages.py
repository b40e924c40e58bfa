"""Ranks the first pages that a release holds, by the steps that the gateway takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from marquee_services.arrays import Float32
from marquee_services.gateway.first_pages import PADDING, FirstPages
from marquee_services.gateway.ranking import cut_page
from marquee_services.gateway.scored import Scored
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE
from marquee_services.scoring.ensemble import BASELINE, Ensemble
from marquee_services.scoring.scorer import ReleaseData
from marquee_trainer.models.model import Model
from marquee_trainer.settings import TrainSettings


@dataclass(frozen=True)
class FirstPagesConfig:
    """Whose first pages a release holds.

    Attributes:
        users: So many users, those with the most ratings; each takes 400 bytes.
        items: Of larger catalogues there are no pages: gateways retrieve candidates of those, and
            would answer otherwise.
        cells: Scores of each model that are held at once.
    """

    users: int = TrainSettings.first_pages
    items: int = GatewaySettings.dense_limit
    cells: int = 1_000_000


def rank_first_pages(
    data: ReleaseData,
    models: Sequence[Model],
    ensemble: Ensemble,
    scale: tuple[float, float],
    config: FirstPagesConfig,
) -> FirstPages:
    """Ranks the unseen items of known users with the whole ensemble.

    Users of whom a model abstains have none, and are answered as they come.

    Args:
        data: What the models were fitted on.
        models: All models of the release, in the manifest's order, the gateway's own among them.
        ensemble: Their blends.
        scale: The lowest and highest rating, in stars.
        config: Whose.
    """
    names = tuple(model.name for model in models)
    counts = np.diff(data.matrix.indptr)
    most = np.argsort(-counts, kind="stable")[: config.users]
    users = np.sort(most[counts[most] > 0]).astype(np.int32)
    if data.matrix.item_count > config.items or not len(users):
        return FirstPages.none(names)
    backends = frozenset(model.backend for model in models) - {"gateway"}
    blends = ensemble.blends(sorted(backends))
    shape = len(users), DEFAULT_PAGE_SIZE
    pages = FirstPages(
        users,
        np.full(shape, PADDING, np.int32),
        np.zeros(shape),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.uint32),
        names,
    )
    bits = {name: 1 << m for m, name in enumerate(names)}
    answered = np.ones(len(users), dtype=np.bool_)
    block = max(1, config.cells // data.matrix.item_count)
    for first in range(0, len(users), block):
        profiles = data.matrix.profiles(users[first : first + block])
        outputs = {
            model.name: model.scorer.score(profiles)
            for model in models
            if model.name in blends.models() or model.name == BASELINE
        }
        for row in range(len(profiles)):
            own = {name: scores[row] for name, scores in outputs.items()}
            scored = Scored(None, own, blends, backends, scale, (), ())
            answered[first + row] = _fill(pages, first + row, scored, data, bits)
    return FirstPages(
        pages.users[answered],
        pages.items[answered],
        pages.scores[answered],
        pages.stars[answered],
        pages.proposed[answered],
        names,
    )


def _fill(
    pages: FirstPages, row: int, scored: Scored, data: ReleaseData, bits: Mapping[str, int]
) -> bool:
    """Ranks one user's page; False when a model abstains."""
    if any(np.isnan(scores[0]) for scores in scored.outputs.values()):
        return False
    eligible = np.ones(data.matrix.item_count, dtype=np.bool_)
    eligible[data.matrix.seen(int(pages.users[row]))] = False
    none: Float32 = np.empty((0, 0), np.float32)
    page = cut_page(scored, eligible, None, 0.0, none, 0, DEFAULT_PAGE_SIZE)
    end = len(page.places)
    pages.items[row, :end] = page.places
    pages.scores[row, :end] = scored.ranking[page.places]
    pages.stars[row, :end] = scored.stars[page.places]
    proposers = scored.proposers(page.places, page.eligible, DEFAULT_PAGE_SIZE)
    pages.proposed[row, :end] = [sum(bits[name] for name in found) for found in proposers]
    return True
