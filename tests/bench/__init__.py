"""The serving benchmark: throughput, latency and memory, relative to references in the same run.

Start with `__main__.py`, which runs the modules of `sections/`, one for each table. `load.py` is
the load generator, and `release.py` trains the release that is served.
"""
