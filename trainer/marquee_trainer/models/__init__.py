"""Fits the models; they score in `marquee_core.scorers`.

To add a model, write a subclass of `ConfiguredModel`, list it in `registry.py`, register its
scorer with a service, and add its cost to `costs.py`; `trainer/README.md` walks through an example.
May import `metrics`, `data` and `marquee_core`. Start with `model.py`, the interface.
"""
