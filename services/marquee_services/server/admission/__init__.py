"""Which calls are admitted, in which order, and when a call is refused.

`adaptive_limit.py` limits the calls in progress, with `overload.py`, `unloaded_latency.py` and
`admission_queue.py`; `early_admission.py` applies it before a request is read, and `refusals.py`
refuses calls at the lowest cost. `calls.py` counts the calls in progress, `priority.py` orders
them, and `request_limits.py` limits the size of a request. May import `connections`,
`telemetry` and `status`. Start with `adaptive_limit.py`.
"""
