"""The TensorFlow models: simple, deep and residual MF, and AutoRec of items and of users.

They are saved as SavedModels with the signatures of `marquee_core.scorers.saved_model`. Start with
`mf.py`.
"""
