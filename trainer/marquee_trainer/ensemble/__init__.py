"""Learns how the models' scores are blended: one blend for ranking, one for predicted stars.

Blends are learned on validation ratings. Start with `blends.py`.
"""
