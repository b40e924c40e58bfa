"""Changes a running deployment under load, and counts failed calls: `make deploy-live`.

`cluster.py` runs pods as local processes, `changes.py` has the changes, `callers.py` the load.
"""
