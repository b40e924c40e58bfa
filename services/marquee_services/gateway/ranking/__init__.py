"""Ranks a page for a subject: id look-ups, filters, scores, the blend, and re-ranking.

A visitor's profile is built in `subjects.py`; the scorers in `marquee_core.scorers` fold it in.
`deadline.py` limits the time of backends. May import `backends`, `feedback` and `releases`. Start
with `router.py`, which collects the scores.
"""
