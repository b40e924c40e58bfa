"""Checks the deployment without a cluster: manifests, relations between objects, images, processes.

`make deploy-check` runs everything and prints a table; the tests use the parts.
"""
