"""Publishing: turns trained models into a release in a store.

`precomputed.py` ranks the first pages of known users, and `retrieval.py` chooses how candidates
are generated from large catalogues. May import `training`, `models`, `metrics`, `data`, the core
and the gateway's ranking. Start with `release.py`.
"""
