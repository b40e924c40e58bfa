"""Loads ratings from any source as a `RatingsDataset`, and splits them.

Imports `marquee_core` only. Read `source.py` first: it decides which reader loads a source.
GroupLens' files are read by `grouplens.py`, other files and databases by `interpret.py`, which
uses one module per step: `files`, `dialect`, `delimited` and `tables` to read columns, `columns`
and `values` to interpret them, `items`, `repeats` and `scale` to make sense of them.
"""
