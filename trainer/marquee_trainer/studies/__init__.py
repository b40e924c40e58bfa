"""Studies beyond the headline metrics: cold start, unknown users, predictions with a known day.

Each study is a section of the report. Imports `training` and the packages below it. Start with
`cold_start.py`.
"""
