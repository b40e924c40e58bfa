"""Runs independent tasks in other processes, on this machine or on a Ray cluster.

`processes.py` runs tasks on this machine and `ray_tasks.py` on a cluster. A task whose process dies
is run again; other tasks are not affected. The package imports nothing else of the project. Start
with `task.py`, the interface of tasks.
"""
