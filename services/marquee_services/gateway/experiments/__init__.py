"""Routes requests to the arms of an experiment, and counts the lists of each user.

`routing.py` selects the arm of a request, `route.py` describes the selection, and `list_counts.py`
counts lists. May import `caching`, `releases` and `backends`. Start with `routing.py`.
"""
