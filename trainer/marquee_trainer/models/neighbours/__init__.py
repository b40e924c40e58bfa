"""User-based and item-based collaborative filtering.

`neighbourhoods.py` finds the neighbours of all rows with compiled code on all cores, `pairs.py`
compares each pair of rows once if the order does not matter, and `candidates.py` limits the
comparisons on large data. May import `models.model` and what that may import. Start with
`item_cf.py`.
"""
