"""Linear rankers for implicit feedback: EASE, SLIT and iALS.

`implicit_feedback.py` chooses their hyperparameters on validation ratings, for example which
ratings count as likes. May import `models.cf_model` and below. Start with `ease.py`.
"""
