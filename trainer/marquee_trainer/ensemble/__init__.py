"""How the models' scores are blended: one blend for ranking, one for predicted stars.

Learned on validation ratings. Imports `metrics` and `marquee_core`. Start with `blends.py`.
"""
