"""`report.html`: the charts and tables of an evaluation, in one self-contained file.

Each module of `sections` creates one part of the report, and `summary.py` the part at the top.
`plots.py` chooses what to draw, `charts.py` and `svg.py` draw it, and `page.py` writes the HTML
with the style sheets and the script in this folder. May import `studies`, `training` and everything
below. Start with `report.py`.
"""
