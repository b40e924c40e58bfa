"""Code that the trainer and the servers share: ratings, the catalogue, scorers and releases.

Evaluation and serving score with the same code, which is in `scorers/`. `retrieval/` finds the best
items of large catalogues, and `release/` publishes and reads releases. May import NumPy, SciPy and
fsspec, but not gRPC, the services or the trainer; TensorFlow only for `scorers/saved_model.py`.
Start with `scorers/scorer.py`, the interface that every model implements.
"""
