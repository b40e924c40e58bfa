"""Calls to the CF and inference services: their replicas, their health, and why calls fail.

May import `server`, `scoring` and the generated code, and within the gateway only `settings`. Start
with `backend.py`, which picks a replica for each call; `replica.py` makes the call.
"""
