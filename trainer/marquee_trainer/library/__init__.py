"""The trainer as a library: the functions of `import marquee_trainer`, in the order of their use.

They are the steps of `marquee train` with its default options, and print nothing. The functions
that they call have more options. May import every package of the trainer except `reporting` and
`commands`. Start with `run.py`; `ratings.py` has the steps before a run.
"""
