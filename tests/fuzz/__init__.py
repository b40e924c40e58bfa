"""Fuzz tests: feed damaged input to every parser (`make fuzz`).

`targets.py` lists the parsers, `mutate.py` damages valid inputs, and `run.py` runs the parsers.
"""
