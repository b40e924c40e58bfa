"""Training from start to end: fit, learn the ensemble, refit, evaluate, refit on all ratings.

May import `ensemble`, `models`, `metrics` and `data`. Start with `train.py`, which calls the steps
in order. `refit.py` fits the models that a release serves, `config.py` holds the settings,
`results.py` what training returns, and `parallel_fits.py` fits models in other processes.
"""
