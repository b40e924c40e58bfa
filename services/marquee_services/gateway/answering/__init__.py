"""Turns valid requests into responses, with one module for each kind of answer.

`stored_answers.py` answers without scoring; `recommend.py`, `predict.py` and `similar.py` use
scores; `lookups.py` and `status.py` need only the loaded releases. `degradation.py` decides whether
an answer is degraded. May import every other package of the gateway; within the gateway, only
`servicer.py`, `batch.py` and `main.py` import this one. Start with `recommend.py`.
"""
