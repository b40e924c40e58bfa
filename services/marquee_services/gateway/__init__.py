"""The gateway: answers callers with scores that it collects from the CF and inference services.

Imports neither SciPy nor TensorFlow. A request passes `servicer.py` and `validation.py`, then
`answering/`, which uses `caching/`, `ranking/`, `releases/` and `backends/`. Start with
`servicer.py`. To find your way:

- A visitor's profile is built in `ranking/subjects.py`; the scorers fold it in.
- Deadlines: `ranking/deadline.py` for backends, `server/interceptor.py` for callers.
- A page token is checked in `caching/page_token.py`.
- A promoted release comes into service in `releases/serving.py`.
"""
