"""Learns the ensemble's blends on validation data: one for predicted stars, one for ranking."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy.optimize import minimize, nnls

from marquee_core.arrays import Bool, Float32, Float64
from marquee_core.release.ensemble import (
    BASELINE,
    POPULARITY,
    Blend,
    BlendPair,
    Ensemble,
    backend_subsets,
)
from marquee_core.service_names import GATEWAY
from marquee_trainer.ensemble.weight_search import (
    RankingPool,
    SearchConfig,
    prune_weights,
    search_weights,
)


@dataclass(frozen=True)
class BlendConfig:
    """How blends are learned.

    Attributes:
        rating_ridge: λ of the rating blend, which pulls its weights towards the plain mean of the
            models. It is in units of validation ratings: with about this many, data and penalty
            have equal influence.
        max_rating_pruning_loss: Models are pruned from the rating blend as long as the mean squared
            error rises by at most this share in all.
        ranking_ridge: λ of the listwise blend, an L2 penalty on weights of standardised scores.
        max_ranking_users: The largest number of validation users, drawn at random, from which the
            ranking blend is learned, to limit memory.
        max_list_items: The largest number of items in the list of each such user; see
            `collect_lists`.
        search: How the ranking blend's weights are searched.
    """

    rating_ridge: float = 30.0
    max_rating_pruning_loss: float = 5e-4
    ranking_ridge: float = 1e-4
    max_ranking_users: int = 2_000
    max_list_items: int = 4_096
    search: SearchConfig = field(default_factory=SearchConfig)


@dataclass(frozen=True)
class RankingLists:
    """Candidate lists of U validation users, each of at most P items.

    The lists hold all items of a small catalogue. For a large one, each list holds the items that
    can reach the top, and a random sample of the others; see `collect_lists`.

    Attributes:
        scores: By model, its scores of the items (float32, U × P).
        candidates: True for items that are not among the user's training ratings (bool, U × P).
        relevant: True for candidates that are relevant in the validation ratings (bool, U × P);
            each user has at least one.
        weights: The number of candidates that each item represents, 0 if it is not a candidate
            (float32, U × P); None if every item represents itself.
        scales: By model, the standard deviation of its scores of candidates in the whole
            catalogue; None if the lists hold all candidates.
    """

    scores: Mapping[str, Float32]
    candidates: Bool
    relevant: Bool
    weights: Float32 | None = None
    scales: Mapping[str, float] | None = None

    def scale(self, model: str) -> float:
        """The standard deviation of a model's scores of candidates; 1 if they are constant."""
        if self.scales is not None:
            return self.scales[model] or 1.0
        return float(self.scores[model][self.candidates].std()) or 1.0


def learn_rating_blend(predictions: Mapping[str, Float32], ratings: Float32, ridge: float) -> Blend:
    """Learns the rating blend by least squares with non-negative weights.

    The weights apply to each model's difference from the baseline's prediction b:

    minimise Σ (r − b − c − Σ w_m (s_m − b))² + λ σ² Σ (w_m − 1/M)², w ≥ 0,

    where σ² is the variance of the differences s_m − b, so that λ means the same whatever their
    size. This is stacked regression (Breiman, 1996) with a ridge towards the plain mean of the M
    models, which keeps the weights stable when there are few validation ratings.

    Args:
        predictions: By model, predictions of the validation ratings, in stars (float32, n); must
            include the baseline.
        ratings: The validation ratings, in stars (float32, n).
        ridge: λ; see `BlendConfig.rating_ridge` for its unit.
    """
    base = predictions[BASELINE].astype(np.float64)
    names = [name for name in predictions if name != BASELINE]
    target = ratings - base
    if not names:
        return Blend({BASELINE: 1.0}, float(target.mean()))
    differences = np.stack([predictions[name] - base for name in names], axis=1)
    means, mean_target = differences.mean(axis=0), float(target.mean())
    # The ridge enters as one extra row per model.
    root = np.sqrt(ridge * differences.var())
    rows = np.vstack([differences - means, root * np.eye(len(names))])
    targets = np.concatenate([target - mean_target, np.full(len(names), root / len(names))])
    weights, _ = nnls(rows, targets)
    blend = {name: w for name, w in zip(names, weights.tolist(), strict=True) if w > 0}
    blend[BASELINE] = 1.0 - float(weights.sum())
    return Blend(blend, mean_target - float(means @ weights))


def prune_rating_blend(
    predictions: Mapping[str, Float32], ratings: Float32, ridge: float, max_loss: float
) -> Blend:
    """Learns a rating blend, leaving out models that hardly improve it.

    Every model of the rating blend predicts the stars of each answer, so a model must be worth its
    time. Models are tried in the order of their weights, the smallest first, relearning the blend
    of the others. A model is left out if the mean squared error then exceeds that of the blend of
    all models by at most the share `max_loss`. Whether the difference is significant does not
    matter: with a million ratings, differences are that no user would notice.

    Args:
        predictions: See `learn_rating_blend`.
        ratings: The validation ratings, in stars (float32, n).
        ridge: See `learn_rating_blend`.
        max_loss: The largest relative increase of the error, 0 to 1.
    """

    def squared_error(blend: Blend) -> float:
        return float(np.square(blend.apply(predictions) - ratings).mean())

    blend = learn_rating_blend(predictions, ratings, ridge)
    whole = squared_error(blend)
    kept = dict(predictions)
    for name in sorted(predictions, key=lambda name: blend.weights.get(name, 0.0)):
        if name == BASELINE:
            continue
        others = {other: scores for other, scores in kept.items() if other != name}
        trial = learn_rating_blend(others, ratings, ridge)
        if squared_error(trial) <= (1 + max_loss) * whole:
            kept, blend = others, trial
    return blend


def learn_listwise_blend(lists: RankingLists, models: Sequence[str], ridge: float) -> Blend:
    """Learns a ranking blend with a listwise softmax loss over candidate lists.

    The loss is ListNet's top-one cross entropy (Cao et al., 2007):

    minimise mean_u −1/|R_u| Σ_{i ∈ R_u} log softmax_{C_u}(Σ v_m s_m)_i + λ |v|², v ≥ 0,

    where C_u are user u's candidates, R_u the relevant ones among them, and each model's scores s_m
    are scaled to unit standard deviation. If the lists hold a sample of the candidates, each item
    is weighted in the softmax by the number of candidates that it represents.

    Args:
        lists: The candidate lists of validation users.
        models: Names of the models to blend.
        ridge: λ.

    Returns:
        A blend of the unscaled scores; models of weight 0 are omitted.
    """
    candidates = lists.candidates
    weighted = candidates if lists.weights is None else lists.weights
    scales = [lists.scale(name) for name in models]
    features = np.empty((len(models), *candidates.shape), dtype=np.float32)
    counts = weighted.sum(axis=1)
    for position, (name, scale) in enumerate(zip(models, scales, strict=True)):
        scores = lists.scores[name] / np.float32(scale)
        # Centre each user's scores; adding a constant to them does not change the ranking.
        features[position] = scores - ((scores * weighted).sum(axis=1) / counts)[:, None]
    share = lists.relevant / lists.relevant.sum(axis=1, keepdims=True)
    observed = np.einsum("mui,ui->m", features, share, dtype=np.float64) / len(candidates)

    def loss(weights: Float64) -> tuple[float, Float64]:
        scores = np.tensordot(weights.astype(np.float32), features, axes=1)
        scores[~candidates] = -np.inf
        top = scores.max(axis=1, keepdims=True)
        odds = np.exp(scores - top)
        if lists.weights is not None:
            odds *= lists.weights
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
    """Learns the ranking blend by searching for the weights with the highest NDCG.

    The search starts once from the best single model and once from the listwise blend, so what it
    finds is at least as good as both on these lists. Models that do not measurably improve that
    blend are then left out, which may lower its NDCG slightly; see `prune_weights`.

    Args:
        lists: The candidate lists of validation users.
        models: Names of the models to blend.
        config: The ridge of the listwise blend, and how weights are searched.
    """
    pool = RankingPool.of(
        lists.scores,
        models,
        lists.candidates,
        lists.relevant,
        config.search.depth,
        [lists.scale(name) for name in models],
    )
    single_models = np.eye(len(models))
    starts = [
        max(
            single_models,
            key=lambda weights: pool.ndcg(pool.blended(weights), config.search.depth),
        )
    ]
    listwise = learn_listwise_blend(lists, models, config.ranking_ridge).weights
    if listwise:
        starts.append(np.array([listwise.get(name, 0.0) for name in models]) * pool.scales)
    found = [search_weights(pool, start, config.search) for start in starts]
    weights, _ = max(found, key=lambda pair: pair[1])
    weights = prune_weights(pool, weights, config.search)
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
    """Learns a rating blend and a ranking blend for every subset of the backends.

    When a backend is unavailable, the gateway uses the blends that were learned without it.

    Args:
        backend_of: By model, the backend that serves it; `GATEWAY` for the baselines, which are
            always available.
        predictions: By rating predictor, predictions of the validation ratings, in stars (float32,
            n); empty for implicit feedback, whose rating blends are empty too.
        ratings: The validation ratings, in stars (float32, n).
        lists: Candidate lists of validation users, with the scores of every model. If there are no
            users, popularity ranks, because no weights can be learned.
        config: How blends are learned.
    """
    backends = sorted(set(backend_of.values()) - {GATEWAY})
    pairs = {}
    for subset in backend_subsets(backends):
        available = [name for name, backend in backend_of.items() if backend in subset | {GATEWAY}]
        available_predictions = {
            name: predictions[name] for name in available if name in predictions
        }
        pairs[subset] = BlendPair(
            rating=(
                prune_rating_blend(
                    available_predictions,
                    ratings,
                    config.rating_ridge,
                    config.max_rating_pruning_loss,
                )
                if available_predictions
                else Blend({}, 0.0)
            ),
            ranking=(
                learn_ranking_blend(lists, available, config)
                if len(lists.candidates)
                else Blend({POPULARITY: 1.0}, 0.0)
            ),
        )
    return Ensemble(pairs)
