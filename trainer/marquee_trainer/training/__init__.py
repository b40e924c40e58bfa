"""Training from start to end: split, fit, learn the ensemble, refit, evaluate, refit on everything.

Imports `data`, `models`, `ensemble` and `metrics`. Start with `train.py`, which calls the steps in
order; `refit.py` makes the models that a release serves, `config.py` holds the settings, and
`results.py` what training returns.
"""
