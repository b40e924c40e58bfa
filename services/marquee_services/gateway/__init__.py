"""The gateway: serves the public API with scores from the CF and inference services.

May import `server`, but neither SciPy nor TensorFlow. A request passes through `servicer.py` and
`validation.py` to `answering/`, which uses `caching/`, `ranking/`, `releases/` and `backends/`.
Start with `servicer.py`. Where to find what:

- A visitor's profile is built in `ranking/subjects.py`; the scorers fold it in.
- Deadlines: `ranking/deadline.py` for backends, `server/interceptor.py` for callers.
- A page token is checked in `caching/page_token.py`; flags are declared in `settings.py`.
- Whether an answer is degraded is decided in `answering/degradation.py`.
- A promoted release comes into service in `releases/serving.py`.
"""
