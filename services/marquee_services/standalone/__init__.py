"""The gateway with both backends in one process, without calls between services.

`main.py` starts the gateway of `marquee_services.gateway` with the backends of `backend.py`, which
score with the engines of `marquee_services.scoring`; `verification.py` uses such a server to verify
releases. May import `gateway`, `cf`, `inference`, `scoring` and `server`. Start with `main.py`.
"""
