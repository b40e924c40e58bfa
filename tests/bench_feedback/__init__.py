"""Measures how feedback ingest affects other calls, and how soon events take effect."""
