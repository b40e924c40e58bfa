"""Checks the pinned versions against a database of known vulnerabilities (OSV)."""
