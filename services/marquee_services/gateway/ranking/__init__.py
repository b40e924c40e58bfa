"""From a subject to a ranked page: id look-ups, filters, scores, the blend, and re-ranking.

A visitor's profile is built in `subjects.py`; the scorers of `marquee_core.scorers` fold it in.
`deadline.py` says how long backends may take. May import `backends` and `releases`. Start with
`router.py`, which collects the scores.
"""
