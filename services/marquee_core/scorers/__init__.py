"""How each model scores: the one scoring implementation, used by the services and by evaluation.

One file per model, with its configuration and its scorer; a scorer also folds visitors in. The
package imports the rest of `marquee_core`, and TensorFlow in `saved_model.py` only. Start with
`scorer.py`, the interface, then `ease.py` for a short example. `hyperparameters.py` has the types
of the configurations' fields.
"""
