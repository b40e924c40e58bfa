"""Rankings: full-ranking metrics of every model, with intervals and p-values."""

from __future__ import annotations

from marquee_trainer.reporting import plots
from marquee_trainer.reporting.page import Section
from marquee_trainer.reporting.significance import ranking_comparisons, ranking_intervals
from marquee_trainer.training.evaluate import Evaluation

# Further metrics with their column headings.
_FURTHER = {
    "recall@20": "Recall@20",
    "mrr": "MRR",
    "map": "MAP",
    "debiased_ndcg@10": "debiased NDCG@10",
    "coverage@10": "coverage@10",
    "novelty@10": "novelty@10",
    "gini@10": "Gini@10",
    "diversity@10": "diversity@10",
}


def ranking_section(evaluation: Evaluation, seed: int) -> Section:
    """The ranking and beyond-accuracy metrics of every model.

    Args:
        evaluation: The metrics and rankings.
        seed: Seed of the bootstrap's resamples.
    """
    intervals = ranking_intervals(evaluation, seed)
    comparisons = ranking_comparisons(evaluation, seed)
    rows = []
    best_first = sorted(intervals, key=lambda name: -intervals[name].mean)
    for name in best_first:
        metrics = evaluation.metrics[name]
        interval, comparison = intervals[name], comparisons.get(name)
        rows.append(
            [
                name,
                f"{interval.mean:.4f}",
                f"{interval.low:.4f} – {interval.high:.4f}",
                "" if comparison is None else f"{comparison.p_value:.4f}",
                *(f"{metrics[key]:.4f}" for key in _FURTHER),
            ]
        )
    return Section(
        "Rankings",
        f"Means over the {evaluation.ranked_users:,} users who have a relevant test item. The "
        "p-value compares the ensemble's NDCG@10 with the model's by a paired bootstrap over "
        "users.",
        ("model", "NDCG@10", "95 % interval", "p", *_FURTHER.values()),
        rows,
        [plots.ranking_bars(intervals)],
    )
