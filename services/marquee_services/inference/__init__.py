"""Scoring with TensorFlow SavedModels."""
