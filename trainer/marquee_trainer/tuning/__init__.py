"""`marquee tune`: searches hyperparameters on validation ratings, with Optuna.

May import `training` and everything below it. Start with `search.py`; `spaces.py` collects the
search spaces, which the configuration classes declare, and `tuned_file.py` writes the result.
"""
