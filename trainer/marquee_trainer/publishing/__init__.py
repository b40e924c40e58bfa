"""Publishes trained models as a release.

`precomputed.py` ranks the first pages of known users, `retrieval.py` chooses how candidates are
generated from large catalogues, and `held_out.py` stores the evaluation. May import `training` and
everything below it, the core and the gateway's ranking. Start with `release.py`.
"""
