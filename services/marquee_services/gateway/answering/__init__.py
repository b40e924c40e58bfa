"""How each call is answered, from a valid request to a message.

`stored_answers.py` answers from the cache or the release, `recommender.py` computes. Imports the
other packages of the gateway; only `servicer.py`, `batch.py` and `main.py` import this one. Start
with `recommender.py`.
"""
