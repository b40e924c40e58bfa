"""The scorers: one implementation of each model's scores, used by the services and by evaluation.

There is one file per model, with its configuration and its scorer. Scorers also fold in visitors.
The package may import the modules at the top of `marquee_core`, but none of its other packages;
only `saved_model.py` uses TensorFlow. Start with `scorer.py`, the interface, then read `ease.py`
for a short example. `hyperparameters.py` defines the types of configuration fields.
"""
