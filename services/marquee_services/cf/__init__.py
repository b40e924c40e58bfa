"""The CF service: collaborative filtering, linear models and Bayesian MF, in NumPy and SciPy.

It runs the scoring server of `marquee_services.scoring` with the models in `models.py` and the
settings in `settings.py`; `main.py` starts it. May import `scoring` and `server`, but never
TensorFlow. Start with `models.py`.
"""
