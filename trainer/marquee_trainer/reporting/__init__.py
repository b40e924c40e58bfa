"""`report.html`: the plots and tables of an evaluation, in one self-contained file.

Each module of `sections` makes one part of the report, `plots.py` draws and `page.py` writes the
HTML. May import `studies`, `training` and everything below. Start with `report.py`.
"""
