"""Learns how the models' scores are blended: one blend for ranking, one for predicted stars.

Blends are learned on validation ratings. Imports `marquee_core` only. Start with `blends.py`.
"""
