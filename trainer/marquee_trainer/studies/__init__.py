"""Studies beyond the headline metrics: cold start, unknown users, predictions with a known day.

Each study is a section of the report. May import `training` and everything below it. Start with
`cold_start.py`.
"""
