"""The sections of the report, a file for each group of questions.

Each function takes results and returns a `Section`; `reporting/report.py` puts them in order.
Imports `reporting.page`, `reporting.plots` and what lies below `reporting`. Start with
`rankings.py`.
"""
