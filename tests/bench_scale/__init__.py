"""Measures how the costs of training grow with the number of ratings: `make bench-scale`.

Start with `__main__.py`.
"""
