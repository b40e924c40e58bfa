"""The CF service: collaborative filtering, linear models and Bayesian MF, in NumPy and SciPy.

It is the scoring server of `marquee_services.scoring` with the models in `models.py`; it never
imports TensorFlow. Start with `models.py`.
"""
