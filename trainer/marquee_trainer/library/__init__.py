"""The trainer as a library: the functions of `import marquee_trainer`, in the order of their use.

They are the steps of `marquee train` with the defaults of its flags, and print nothing. Each names
the function that does its work, which has more options. May import every package of the trainer
except `reporting` and `commands`. Start with `run.py`; `ratings.py` has the steps before a run.
"""
