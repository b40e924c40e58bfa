"""Runs independent tasks in other processes: of this machine (`processes`), or of a Ray cluster.

A task whose process dies is repeated, and the other tasks are not affected.
"""
