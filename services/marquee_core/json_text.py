"""Parses JSON from untrusted or possibly damaged files."""

from __future__ import annotations

import json
from typing import Any

from marquee_core.errors import ArtifactError, reason_of


def parse_json(content: bytes, what: str) -> Any:
    """Parses JSON; NaN and infinities are rejected.

    Args:
        content: The JSON in UTF-8.
        what: A name for the content, for the error message.

    Raises:
        ArtifactError: The content is not valid JSON, or is nested too deeply.
    """
    try:
        return json.loads(content.decode(), parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"damaged {what}: {reason_of(error)}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"not valid JSON: {name} is not a number")
