"""Looks the pinned versions up in the database of known vulnerabilities (OSV)."""
