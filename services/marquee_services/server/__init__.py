"""Code that all servers share: settings, start-up and shutdown, health, metrics and logs.

`interceptor.py` enforces deadlines and sheds load, `follower.py` keeps the promoted release
loaded, `micro_batcher.py` combines concurrent calls into batches, and `settings.py` declares the
settings from which `options.py` derives command-line options. May import `marquee_core`, `errors`
and the generated code, but none of the services. Start with `runtime.py`.
"""
