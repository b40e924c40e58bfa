"""User-based and item-based collaborative filtering.

`neighbourhoods.py` finds the neighbours of all rows, compiled and on all cores. Start with
`item_cf.py`.
"""
