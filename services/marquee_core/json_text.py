"""Parses JSON that somebody else may have written or damaged."""

from __future__ import annotations

import json
from typing import Any

from marquee_core.errors import ArtifactError, reason_of


def parse_json(content: bytes, what: str) -> Any:
    """Parses JSON without NaN and infinities.

    Args:
        content: The JSON in UTF-8.
        what: What it is, for the error.

    Raises:
        ArtifactError: It is not valid JSON, or is nested too deeply.
    """
    try:
        return json.loads(content.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"damaged {what}: {reason_of(error)}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"not valid JSON: {name} is not a number")
