"""The sections of the report, one module per topic.

Each function takes results and returns a `Section`; `reporting/report.py` arranges them. May import
`reporting.page`, `reporting.plots` and the packages below `reporting`. Start with `rankings.py`.
"""
