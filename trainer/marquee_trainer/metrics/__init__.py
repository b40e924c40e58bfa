"""Rating metrics, ranking metrics, beyond-accuracy metrics, and bootstrap intervals.

May import `data` and `marquee_core`. Start with `ranking_metrics.py`.
"""
