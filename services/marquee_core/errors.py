"""Errors shared by the trainer and the servers."""

from __future__ import annotations

import json


class ArtifactError(Exception):
    """A release or one of its files is missing or damaged."""


def reason_of(error: Exception) -> str:
    """Returns a human-readable reason why reading structured data failed."""
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error}"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
