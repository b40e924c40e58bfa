"""Paths of the checkout and of the real data."""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
TESTS = PROJECT / "tests"
# MovieLens data next to the checkout; tests that need it are skipped if it is missing.
REAL_DATA = PROJECT.parent / "shared" / "data"
