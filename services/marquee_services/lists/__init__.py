"""Lists of users of a release, computed without servers (`marquee batch --store`).

`run.py` divides the users into parts, skips parts that an earlier run has finished, and has the
others computed by `worker.py` in other processes. The lists are the same as those of a gateway:
`blocks.py` ranks many users at the same time with functions of the gateway, and `single.py` calls
the gateway's `Recommender` for requests and users that need more. `computer.py` chooses between
them; the trainer uses it to precompute first pages. May import `gateway`, `cf`, `inference` and
`scoring`. Start with `run.py`.
"""
