"""Learns the ensemble's blends on validation data: one for stars, one for order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import minimize, nnls

from marquee_core.arrays import Bool, Float32, Float64
from marquee_core.release.ensemble import (
    BASELINE,
    Blend,
    BlendPair,
    Ensemble,
    backend_subsets,
)
from marquee_trainer.ensemble.weight_search import RankingPool, SearchConfig, search_weights


@dataclass(frozen=True)
class BlendConfig:
    """How blends are learned.

    Attributes:
        rating_ridge: Ridge of the rating blend, in validation ratings: how many would have to
            speak against the mean of the models before it is left.
        ranking_ridge: L2 penalty of the listwise blend's standardised weights.
        ranking_users: At most so many validation users teach the ranking blend; bounds memory.
        search: How the ranking blend's weights are searched.
    """

    rating_ridge: float = 30.0
    ranking_ridge: float = 1e-4
    ranking_users: int = 2_000
    search: SearchConfig = field(default_factory=SearchConfig)


@dataclass(frozen=True)
class RankingLists:
    """Full candidate lists of validation users.

    Attributes:
        scores: Each model's scores (float32, U × items).
        candidates: Items not in the users' training ratings (bool, U × items).
        relevant: Relevant items of the validation split (bool, U × items), some for each user.
    """

    scores: Mapping[str, Float32]
    candidates: Bool
    relevant: Bool


def learn_rating_blend(predictions: Mapping[str, Float32], ratings: Float32, ridge: float) -> Blend:
    """Least squares with non-negative weights of each model's departure from the baseline.

    minimise Σ (r − b − c − Σ w_m (s_m − b))² + λ Σ (w_m − 1/M)², w ≥ 0: stacking (Breiman, 1996)
    with a ridge towards the plain mean, so that little validation data does little harm.

    Args:
        predictions: By model, predictions of the validation ratings (float32, n); the baseline's
            among them.
        ratings: The ratings (float32, n).
        ridge: λ, in ratings.
    """
    base = predictions[BASELINE].astype(np.float64)
    names = [name for name in predictions if name != BASELINE]
    target = ratings - base
    if not names:
        return Blend({BASELINE: 1.0}, float(target.mean()))
    departures = np.stack([predictions[name] - base for name in names], axis=1)
    means, mean_target = departures.mean(axis=0), float(target.mean())
    # The variance makes a ridge of so many ratings the same for any scale of the departures.
    root = np.sqrt(ridge * departures.var())
    rows = np.vstack([departures - means, root * np.eye(len(names))])
    wanted = np.concatenate([target - mean_target, np.full(len(names), root / len(names))])
    weights, _ = nnls(rows, wanted)
    blend = {name: w for name, w in zip(names, weights.tolist(), strict=True) if w > 0}
    blend[BASELINE] = 1.0 - float(weights.sum())
    return Blend(blend, mean_target - float(means @ weights))


def learn_listwise_blend(lists: RankingLists, models: Sequence[str], ridge: float) -> Blend:
    """A listwise softmax over full candidate lists (ListNet's top-one loss; Cao et al., 2007).

    minimise mean_u −1/|R_u| Σ_{i ∈ R_u} log softmax_{C_u}(Σ v_m s_m)_i + λ |v|², v ≥ 0, where C_u
    are the candidates and R_u the relevant ones, and each s_m is scaled to unit deviation.

    Args:
        lists: The lists.
        models: The models to blend.
        ridge: λ.
    """
    candidates = lists.candidates
    scales = [float(lists.scores[name][candidates].std()) or 1.0 for name in models]
    features = np.stack(
        [lists.scores[name] / scale for name, scale in zip(models, scales, strict=True)]
    )
    # Centred on each user's candidates: a constant of a user does not change the order.
    counts = candidates.sum(axis=1)
    features -= ((features * candidates).sum(axis=2) / counts)[:, :, None]
    share = lists.relevant / lists.relevant.sum(axis=1, keepdims=True)
    observed = np.einsum("mui,ui->m", features, share, dtype=np.float64) / len(candidates)

    def loss(weights: Float64) -> tuple[float, Float64]:
        scores = np.tensordot(weights.astype(np.float32), features, axes=1)
        scores[~candidates] = -np.inf
        top = scores.max(axis=1, keepdims=True)
        odds = np.exp(scores - top)
        total = odds.sum(axis=1, keepdims=True)
        logs = (top + np.log(total)).mean(dtype=np.float64)
        expected = np.einsum("mui,ui->m", features, odds / total, dtype=np.float64)
        gradient = expected / len(candidates) - observed + 2 * ridge * weights
        value = logs - float(weights @ observed) + ridge * float(weights @ weights)
        return float(value), gradient

    found = minimize(
        loss,
        np.full(len(models), 1.0 / len(models)),
        jac=True,
        method="L-BFGS-B",
        bounds=[(0.0, None)] * len(models),
    )
    return Blend(
        {
            name: float(weight) / scale
            for name, weight, scale in zip(models, found.x, scales, strict=True)
            if weight > 0
        },
        0.0,
    )


def learn_ranking_blend(lists: RankingLists, models: Sequence[str], config: BlendConfig) -> Blend:
    """The weights that order best at the top of the lists, by NDCG.

    They are searched from the best single model and from the listwise blend, so that the result is
    no worse than either on these lists.

    Args:
        lists: The lists.
        models: The models to blend.
        config: The ridge of the listwise blend, and how weights are searched.
    """
    pool = RankingPool.of(
        lists.scores, models, lists.candidates, lists.relevant, config.search.depth
    )
    alone = np.eye(len(models))
    starts = [max(alone, key=lambda one: pool.ndcg(pool.blended(one), config.search.depth))]
    listwise = learn_listwise_blend(lists, models, config.ranking_ridge).weights
    if listwise:
        starts.append(np.array([listwise.get(name, 0.0) for name in models]) * pool.scales)
    found = [search_weights(pool, start, config.search) for start in starts]
    weights, _ = max(found, key=lambda pair: pair[1])
    return Blend(
        {
            name: float(weight / scale)
            for name, weight, scale in zip(models, weights, pool.scales, strict=True)
            if weight > 0
        },
        0.0,
    )


def learn_ensemble(
    backend_of: Mapping[str, str],
    predictions: Mapping[str, Float32],
    ratings: Float32,
    lists: RankingLists,
    config: BlendConfig,
) -> Ensemble:
    """Learns the blends for every set of backends that may be there.

    Args:
        backend_of: The backend of each model; `gateway` for those that are always there.
        predictions: By model of stars, predictions of the validation ratings (float32, n).
        ratings: The validation ratings (float32, n).
        lists: Full candidate lists of validation users, for every model.
        config: How blends are learned.
    """
    backends = sorted(set(backend_of.values()) - {"gateway"})
    pairs = {}
    for subset in backend_subsets(backends):
        here = [name for name, backend in backend_of.items() if backend in subset | {"gateway"}]
        stars = {name: predictions[name] for name in here if name in predictions}
        pairs[subset] = BlendPair(
            rating=learn_rating_blend(stars, ratings, config.rating_ridge),
            ranking=learn_ranking_blend(lists, here, config),
        )
    return Ensemble(pairs)
