"""From trained models to a published release.

`precomputed.py` ranks known users' first pages, `retrieval.py` chooses how large catalogues are
searched. Imports `training`, `metrics` and `marquee_core`. Start with `release.py`.
"""
