"""Linear rankers: EASE, SLIT and iALS, fitted in closed form or by alternating least squares.

`implicit_feedback.py` chooses what counts as a like on validation ratings. Start with `ease.py`.
"""
