"""Loads ratings, trains and evaluates models, and publishes releases."""
