"""Where ratings come from, the data set they become, and how it is split.

Imports `marquee_core` alone. Start with `source.py`.
"""
