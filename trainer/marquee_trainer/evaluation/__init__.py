"""Metrics of predicted ratings and of rankings."""
