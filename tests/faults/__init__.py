"""Fault injection under load: real processes are killed, frozen, attacked and given bad files.

Each module prints its own table (`make faults`); `test_*.py` run short forms. Start with
`fault_table.py`, the rows of these tables, and `callers.py`, the users who call meanwhile.
"""
