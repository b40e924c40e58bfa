"""Sanity checks of a release: finite scores, spread of stars, coverage, overlap with production."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from marquee_core.arrays import Float64, Int32
from marquee_core.release.verdict import Check, Decision
from marquee_trainer.gate.config import GateConfig
from marquee_trainer.gate.served_release import ServedRelease
from marquee_trainer.metrics.ranking_metrics import TOP
from marquee_trainer.publishing.held_out import best_items, sample_users

_BLOCK_CELLS = 2_000_000
_MAX_USERS = 300


@dataclass(frozen=True)
class ServedLists:
    """The lists that a release serves to a sample of known users.

    Attributes:
        users: The users (int32).
        lists: Their best items, best first, padded with -1 (int32, users × 10).
        stars: Predicted stars of all items for all users, not clipped; empty if the release
            predicts none (float64, n).
        broken: Names of models whose scores are not finite; if there are any, the lists are empty.
        abstaining: Number of users whom a model cannot score; they have no list.
    """

    users: Int32
    lists: Int32
    stars: Float64
    broken: tuple[str, ...]
    abstaining: int


def rank_sample(release: ServedRelease) -> ServedLists:
    """Ranks items for a sample of known users, which is the same in every release that has them."""
    matrix = release.data.matrix
    rated = np.flatnonzero(np.diff(matrix.indptr)).astype(np.int32)
    users = sample_users(release.users, rated, _MAX_USERS)
    lists, kept, stars = [np.empty((0, TOP), np.int32)], [users[:0]], [np.empty(0)]
    broken: dict[str, None] = {}
    abstaining = 0
    block = max(1, _BLOCK_CELLS // max(1, matrix.item_count))
    for first in range(0, len(users), block):
        part = users[first : first + block]
        profiles = matrix.profiles(part)
        scores = release.scores(profiles)
        abstains = np.zeros(len(part), np.bool_)
        for name, values in scores.items():
            is_absent = np.isnan(values).all(axis=1)
            if not np.isfinite(values[~is_absent]).all():
                broken[name] = None
            abstains |= is_absent
        abstaining += int(abstains.sum())
        if broken:
            continue
        candidates = np.ones((len(part), matrix.item_count), np.bool_)
        candidates[profiles.rows, profiles.items] = False
        ranking = release.ranking(scores)[~abstains].astype(np.float32)
        lists.append(best_items(ranking, candidates[~abstains])[:, :TOP])
        kept.append(part[~abstains])
        if release.predicts_stars:
            stars.append(release.stars(scores)[~abstains].ravel())
    return ServedLists(
        np.concatenate(kept),
        np.concatenate(lists),
        np.concatenate(stars),
        tuple(broken),
        abstaining,
    )


def sanity_checks(
    candidate: ServedRelease, production: ServedRelease | None, config: GateConfig
) -> Iterator[Check]:
    """Checks the lists and the predicted stars of known users.

    Args:
        candidate: The candidate.
        production: The release in production; None if there is none.
        config: The thresholds.
    """
    served = rank_sample(candidate)
    if served.broken:
        names = ", ".join(served.broken)
        yield Check("finite", Decision.REFUSE, f"scores are not finite: {names}")
        return
    text = "all scores are finite"
    if served.abstaining:
        users = len(served.users) + served.abstaining
        text += f"; not every model can score {served.abstaining} of {users} users"
    yield Check("finite", Decision.PROMOTE, text, {"abstaining": float(served.abstaining)})
    if candidate.predicts_stars and len(served.stars):
        yield _stars(candidate, served.stars, config)
    before = None if production is None else rank_sample(production)
    yield _coverage(candidate, served, production, before, config)
    if production is not None and before is not None:
        yield _overlap(candidate, served, production, before, config)


def _stars(release: ServedRelease, stars: Float64, config: GateConfig) -> Check:
    low, high = release.scale
    clipped = np.clip(stars, low, high)
    spread, span, mean = float(clipped.std()), high - low, float(clipped.mean())
    at_ends = float(np.mean((stars <= low) | (stars >= high)))
    rated = float(release.data.matrix.ratings.mean(dtype=np.float64))
    problems = []
    if spread < config.min_spread * span:
        problems.append("they hardly differ")
    if at_ends > config.max_clipped:
        problems.append(f"{at_ends:.0%} are at an end of the scale or beyond")
    if abs(mean - rated) > config.max_bias * span:
        problems.append(f"their mean is far from that of the ratings, {rated:.2f}")
    text = "; ".join([f"mean {mean:.2f}, standard deviation {spread:.2f}", *problems])
    figures = {"mean": mean, "spread": spread, "at_ends": at_ends}
    return Check(
        "spread of stars", Decision.REFUSE if problems else Decision.PROMOTE, text, figures
    )


def _coverage(
    release: ServedRelease,
    served: ServedLists,
    production: ServedRelease | None,
    before: ServedLists | None,
    config: GateConfig,
) -> Check:
    items, catalogue = _distinct(served.lists), len(release.catalogue)
    positions = int((served.lists >= 0).sum())
    share = items / catalogue
    figures = {"items": float(items), "share": share}
    text = f"{items:,} of {catalogue:,} items ({share:.1%}) are on the lists of {len(served.users)}"
    text += " users"
    enough = min(max(config.min_items, config.min_catalogue * catalogue), catalogue)
    if len(served.users) >= config.min_users and items < min(enough, config.min_slots * positions):
        return Check("coverage", Decision.REFUSE, f"{text}: all get almost the same", figures)
    if production is not None and before is not None:
        figures["before"] = _distinct(before.lists) / len(production.catalogue)
        text += f", {figures['before']:.1%} before"
        if share < (1.0 - config.coverage_loss) * figures["before"]:
            return Check("coverage", Decision.ASK, text, figures)
    return Check("coverage", Decision.PROMOTE, text, figures)


def _distinct(lists: Int32) -> int:
    return len(np.unique(lists[lists >= 0]))


def _overlap(
    candidate: ServedRelease,
    served: ServedLists,
    production: ServedRelease,
    before: ServedLists,
    config: GateConfig,
) -> Check:
    """Checks the share of the items on production's lists that are also on the candidate's."""
    theirs = dict(zip(production.users.ids(before.users), before.lists.tolist(), strict=True))
    ids = production.catalogue.items
    shares = []
    for name, own in zip(candidate.users.ids(served.users), served.lists, strict=True):
        if name in theirs:
            old = {item for item in theirs[name] if item >= 0}
            same = set(candidate.catalogue.items.ids(own[own >= 0])) & set(ids.ids(list(old)))
            shares.append(len(same) / max(1, len(old)))
    if not shares:
        return Check("overlap", Decision.PROMOTE, "no user is known to both releases")
    share = float(np.mean(shares))
    text = f"{share:.0%} of the items on production's lists stay, over {len(shares)} users"
    is_low = share < config.min_overlap and len(shares) >= config.min_users
    decision = Decision.ASK if is_low else Decision.PROMOTE
    return Check("overlap", decision, text, {"share": share, "users": float(len(shares))})
