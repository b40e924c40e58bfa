"""Runs the system under a real Prometheus: dashboards' queries, alerts, and drills.

`make observe` evaluates every query under light load; `make drill` provokes the alerts.
"""
