"""The inference service: matrix factorization and AutoRec, from arrays or from SavedModels.

It runs the scoring server of `marquee_services.scoring` with the models in `models.py` and the
settings in `settings.py`; `main.py` starts it. May import `scoring` and `server`, but never SciPy;
TensorFlow is imported only for a model that needs it. Start with `models.py`.
"""
