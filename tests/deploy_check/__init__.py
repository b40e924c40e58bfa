"""Checks the deployment without a cluster: manifests, references, images and processes.

`make deploy-check` runs all checks and prints a table; the tests use the modules separately. Start
with `static.py`, which lists the checks of manifests, and `objects.py`, what they work on.
"""
