"""Keeps the promoted release loaded, and falls back to an earlier one if it cannot be served.

`follower.py` polls the store; `trial.py` first loads a release in a process of its own, and
`failure_watch.py` watches the errors after a switch. May import the core, `settings` and the
modules of `server` for threads and memory. Start with `follower.py`.
"""
