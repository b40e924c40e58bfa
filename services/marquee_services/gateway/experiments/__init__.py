"""Which arm of an experiment answers a request, and how many lists each user gets.

`routing.py` decides, `route.py` describes what it decides for, and `list_counts.py` counts.
"""
