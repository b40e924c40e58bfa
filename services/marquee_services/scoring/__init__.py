"""The scoring server, which the CF and inference services run with different models.

`engine.py` scores with the models of one release and does not depend on gRPC, `servicer.py`
implements `ScoringService` with the message conversions of `converters.py`, `loading.py` loads the
models of a release, and `main.py` starts the server. May import `marquee_core` and `server`. Start
with `engine.py`.
"""
