"""`report.html`: plots and tables of an evaluation, in one file.

Imports `studies`, `training` and `metrics`. Start with `report.py`.
"""
