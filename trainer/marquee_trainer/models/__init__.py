"""Every model as it is fitted; how it scores is in `marquee_core.scorers`.

To add one, write a `Model`, list it in `registry.py` and serve its scorer; `trainer/README.md`
walks through an example. Imports `data` and `marquee_core`. Start with `model.py`.
"""
