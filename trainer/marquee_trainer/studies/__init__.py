"""Studies beyond the headline metrics: cold start, unknown users, a known day.

Each is a section of the report. Imports `training` and what lies below it. Start with
`cold_start.py`.
"""
