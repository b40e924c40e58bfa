"""Bayesian matrix factorization by Gibbs sampling.

Start with `bayesian_mf.py`, the model. `gibbs.py` is the sampler, `gaussian_rows.py` its compiled
draws, and `random_effect.py` adds effects for the study of a known day. May import `models.model`
and what that may import.
"""
