"""Bayesian matrix factorization by Gibbs sampling.

`gibbs.py` is the sampler, `gaussian_rows.py` its compiled draws. Start with `bayesian_mf.py`.
"""
