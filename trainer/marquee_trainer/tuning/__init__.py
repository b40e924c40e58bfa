"""`marquee tune`: searches hyperparameters on validation ratings, with Optuna.

The package imports `training`, `models` and what these import. Start with `search.py`; `spaces.py`
collects the search spaces, which the configuration classes declare, and `tuned_file.py` writes the
result.
"""
