"""The gateway: routes to the backends, ensembles, filters and ranks."""
