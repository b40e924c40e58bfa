"""Bayesian matrix factorization by Gibbs sampling.

`gibbs.py` is the sampler and `gaussian_rows.py` its compiled draws. `random_effect.py` adds effects
that the model of a release does not have. Start with `bayesian_mf.py`.
"""
