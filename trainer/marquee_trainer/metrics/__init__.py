"""Rating metrics, ranking metrics, beyond-accuracy metrics, and bootstrap intervals.

Imports `data` and `marquee_core`. Start with `ranking_metrics.py`.
"""
