"""The promotion gate: whether a release may replace the one in production.

`gate.py` judges a release: `comparison.py` compares it with production on held-out ratings,
`checks.py` checks that what it serves makes sense, and `drift.py` how its ratings differ from
those of production. `served_release.py` loads a release in the way that the services do. A verdict is a
`marquee_core.release.verdict.Verdict`; `marquee_services.promotion` keeps it.
"""
