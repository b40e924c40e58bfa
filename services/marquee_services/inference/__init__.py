"""The inference service: matrix factorization and AutoRec as TensorFlow SavedModels.

It is the scoring server of `marquee_services.scoring` with the models in `models.py`. Start there.
"""
