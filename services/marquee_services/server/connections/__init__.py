"""Limits on connections: how many there are, and how long they may make no progress.

`connection_guard.py` closes connections that gRPC would keep, through `sockets.py`, and
`descriptors.py` keeps file descriptors in reserve. May import `telemetry`. Start with
`connection_guard.py`.
"""
