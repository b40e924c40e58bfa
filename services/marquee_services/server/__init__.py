"""Code that all servers share, from settings to shutdown.

`runtime.py` starts and stops a server, and `interceptor.py` applies to each call what the packages
decide: `admission` which calls are answered and when, `identity` who may call, `connections` which
clients are cut off. `releases` keeps the promoted release loaded, and `telemetry` reports.
`micro_batcher.py` combines concurrent calls into batches. `settings.py` declares the settings, from
which `options.py` derives command-line options. May import `marquee_core`, `errors` and the
generated code, but none of the services. Start with `runtime.py`.
"""
