"""`report.html`: the charts and tables of an evaluation, in one self-contained file.

Each module of `sections` makes one part of the report and `summary.py` the one at the top.
`plots.py` chooses what to draw, `charts.py` and `svg.py` draw it, and `page.py` writes the HTML
with the style and script beside it. May import `studies`, `training` and everything below. Start
with `report.py`.
"""
