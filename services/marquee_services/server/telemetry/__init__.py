"""What operators see of a server: logs, metrics and traces.

`call_scope.py` holds the request id and the trace of a call, which `logs.py` adds to each event.
Imports no other package of `server`. Start with `metrics.py`.
"""
