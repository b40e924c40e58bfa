"""User-based and item-based collaborative filtering.

`neighbourhoods.py` finds the neighbours of every row, compiled and on all cores. Start with
`item_cf.py`.
"""
