"""Formats results as JSON, with the field names of the client's dataclasses."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from typing import Any

from marquee._errors import MarqueeError


def dumps(value: Any, indent: int | None = 2) -> str:
    """Returns a result as JSON, without `raw`; each reason includes its `kind`."""
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if isinstance(value, MarqueeError):
        return {"code": value.code, "reason": value.reason, "message": value.message}
    if is_dataclass(value):
        kind = {"kind": value.kind} if hasattr(value, "kind") else {}
        names = [field.name for field in fields(value) if field.name != "raw"]
        return kind | {name: _plain(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {key: _plain(entry) for key, entry in value.items()}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple | list):
        return [_plain(entry) for entry in value]
    return value
