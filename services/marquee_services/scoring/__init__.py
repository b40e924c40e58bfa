"""Scoring: the one implementation that serves and that the trainer evaluates with."""
