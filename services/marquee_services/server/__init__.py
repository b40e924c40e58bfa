"""Code that all servers share: settings, start-up and shutdown, health, metrics and logs.

`interceptor.py` enforces deadlines, `follower.py` keeps the promoted release loaded, and
`micro_batcher.py` combines concurrent calls into batches. `settings.py` declares the settings, from
which `options.py` derives command-line options. Load is shed by `adaptive_limit.py`, with
`overload.py`, `admission_queue.py` and `unloaded_latency.py`; `early_admission.py` applies it
before a request is read. `calls.py` limits the calls in progress, `rate_limits.py` those of a
caller, and `request_limits.py` the size of a request. May import `marquee_core`, `errors` and the
generated code, but none of the services. Start with `runtime.py`; for load, `adaptive_limit.py`.
"""
