"""What every server has: settings, start and drain, the interceptor, health, metrics and logs.

Deadlines and admission are enforced in `interceptor.py`, releases are followed in `follower.py`,
and waiting requests are batched in `micro_batcher.py`. Imports `marquee_core`, nothing of the
services built on it. Start with `runtime.py`.
"""
