"""Code shared by the trainer and the servers: ratings, the catalogue, scorers and releases.

Evaluation and serving use the same scoring code, in `scorers/`. `retrieval/` finds the best items
of large catalogues, `release/` publishes and reads releases, `feedback/` stores what users do,
`experiments/` assigns users to arms, and `tasks/` runs work in other processes. The package must
not import gRPC, the services or the trainer, and imports TensorFlow only for
`scorers/saved_model.py`. Start with `scorers/scorer.py`, the interface that every model implements.
"""
