"""Errors that the trainer and the servers share."""

from __future__ import annotations

import json


class ArtifactError(Exception):
    """A release or one of its files is missing or damaged."""


def reason_of(error: Exception) -> str:
    """Why reading structured data failed, as a phrase for a message to people."""
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error}"
    if isinstance(error, KeyError):
        return f"{error} is missing"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
