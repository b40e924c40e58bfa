"""Calls to the CF and inference services: their replicas, their health, and why calls fail.

May import `server` and the generated code, and of the gateway only `settings`. Start with
`backend.py`, which picks a replica for each call; `replica.py` makes the call.
"""
