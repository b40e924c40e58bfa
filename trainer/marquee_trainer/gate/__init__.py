"""The promotion gate: whether a release may replace the one in production.

Start with `gate.py`, which judges a release by four kinds of checks: `quality.py` compares it with
production on held-out ratings, `consistency.py` compares what it serves with its own evaluation,
`sanity.py` looks for implausible scores and lists, and `drift.py` for changes of the ratings.
`inputs.py` checks ratings before training. May import `studies` and everything below it.
"""
