"""Paths that tests need."""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
TESTS = PROJECT / "tests"
# MovieLens data next to the checkout. A plain clone lacks it, and the tests that need it skip.
REAL_DATA = PROJECT.parent / "shared" / "data"
