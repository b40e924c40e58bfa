"""The gateway: answers callers, asks the CF and inference services, and blends their scores.

Imports neither SciPy nor TensorFlow. A request passes `validation.py`, `answering/`, `ranking/`
and `backends/`; `caching/` holds cached answers and lists, `releases/` the loaded releases. Start
with `servicer.py`.
"""
