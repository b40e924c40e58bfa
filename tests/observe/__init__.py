"""Runs the system under a real Prometheus, to check dashboards and alerts.

`make observe` evaluates every query under light load; `make drill` causes the faults behind the
alerts. `production.py` runs the system, `monitoring.py` reads the dashboards and rules, and
`faults.py` lists the faults.
"""
