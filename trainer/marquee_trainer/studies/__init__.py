"""Studies beyond the headline metrics: new users, unknown users, predictions with a known day.

Each study is a section of the report. May import `training` and everything below it. Start with
`new_users.py`.
"""
