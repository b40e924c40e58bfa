"""Training from start to end: split, fit, learn the ensemble, refit, evaluate.

Imports `data`, `models`, `ensemble` and `metrics`. Start with `train.py`, which calls the steps in
order; `config.py` holds the settings and `results.py` what training returns.
"""
