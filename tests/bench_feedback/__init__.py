"""Measures feedback: what ingest costs other calls, and how soon events have an effect."""
