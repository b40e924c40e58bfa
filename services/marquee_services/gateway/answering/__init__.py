"""One module for each kind of answer: a valid request comes in, a response message goes out.

`stored_answers.py` answers without scoring, `recommend.py`, `predict.py` and `similar.py` with
scores, `lookups.py` and `status.py` from the loaded releases alone. May import every other package
of the gateway; only `servicer.py`, `batch.py` and `main.py` import this one. Start with
`recommend.py`.
"""
