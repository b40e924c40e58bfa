"""`marquee tune`: the search for hyperparameters on validation ratings.

Imports `training` and `models`. Start with `search.py`; `spaces.py` lists what is searched.
"""
