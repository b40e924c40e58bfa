"""The order of work: split, fit, learn the ensemble, refit, evaluate.

Imports `data`, `models`, `ensemble` and `metrics`. Start with `train.py`.
"""
