"""Lists for all users of a release, computed without servers: `marquee batch --store`.

`run.py` cuts the users into partitions, has them computed in other processes and skips those that
an earlier run has finished; `worker.py` computes one. The answers are those that a gateway gives:
`blocks.py` ranks many users at once with the gateway's own steps, and `single.py` calls its
`Recommender` for requests and users that need more than that.
"""
