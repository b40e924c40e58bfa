"""What the trainer and the servers share: arrays, ratings, the catalogue, the scorers and releases.

Evaluation and serving score with the same code, in `scorers/`. Nothing here knows gRPC, and only
`scorers/saved_model.py` imports TensorFlow. Imports NumPy, SciPy and fsspec, nothing of the
services or the trainer. Start with `scorers/scorer.py`, the interface that every model implements.
"""
