"""Loads ratings from any source as a `RatingsDataset`, and splits them.

May import only `marquee_core`. Start with `source.py`, which decides which reader loads a source.
`grouplens.py` reads GroupLens' files, and `interpret.py` other files and databases. It uses one
module per step: `files`, `dialect`, `delimited` and `tables` read columns, `columns` and `values`
interpret them, and `items`, `repeats`, `scale` and `assembly` build the data set.
"""
