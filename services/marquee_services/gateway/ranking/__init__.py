"""From a subject to a ranked page: look-ups, filters, scores, the blend and re-ranking.

Imports `backends` and `releases`. Start with `router.py`.
"""
