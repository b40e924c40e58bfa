"""Where the tests find the project and the real data that lies beside it."""

from __future__ import annotations

from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]
# Absent in a plain clone: tests that need it skip.
REAL_DATA = PROJECT.parent / "shared" / "data"
