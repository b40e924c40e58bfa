"""Rating metrics, ranking metrics, beyond-accuracy metrics, and bootstrap intervals.

Each function takes arrays of predictions, lists or relevant items, and knows nothing of models.
May import `data` and `marquee_core`. Start with `ranking_metrics.py`.
"""
