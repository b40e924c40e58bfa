"""Reads the fields of parsed JSON objects, and checks their types and ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from marquee_core.errors import ArtifactError

MAX_TEXT = 4096
"""The default maximum length of a string, in characters."""


class Fields:
    """The fields of a JSON object. Each method reads one field; errors name its path.

    Attributes:
        raw: The object as it was parsed, unchecked.
    """

    def __init__(self, raw: object, where: str) -> None:
        """Takes the object, and its path in the document for error messages.

        Raises:
            ArtifactError: The value is not an object.
        """
        if not isinstance(raw, dict):
            raise ArtifactError(f"damaged {where}: not an object")
        self.raw: Mapping[str, Any] = raw
        self._where = where

    def check_names(self, names: frozenset[str]) -> None:
        """Checks that the object has no fields other than the given ones.

        Raises:
            ArtifactError: It has another field.
        """
        for name in self.raw:
            if name not in names:
                raise self.error(name[:100], "unknown field")

    def error(self, name: str, reason: str) -> ArtifactError:
        """Returns the error for an invalid field."""
        return ArtifactError(f"damaged {self._where}: {name}: {reason}")

    def value(self, name: str) -> Any:
        """Returns a field of any type.

        Raises:
            ArtifactError: It is missing.
        """
        if name not in self.raw:
            raise self.error(name, "it is missing")
        return self.raw[name]

    def text(self, name: str, max_length: int = MAX_TEXT) -> str:
        """Returns a string.

        Raises:
            ArtifactError: The field is missing, not a string, or too long.
        """
        value = self.value(name)
        if not isinstance(value, str):
            raise self.error(name, f"expected a string, not {_abbreviated(value)}")
        if len(value) > max_length:
            raise self.error(name, f"longer than {max_length} characters")
        return value

    def time(self, name: str) -> str:
        """Returns an ISO 8601 timestamp.

        Raises:
            ArtifactError: The field is missing or not a timestamp.
        """
        text = self.text(name, 64)
        try:
            datetime.fromisoformat(text)
        except ValueError as error:
            raise self.error(name, f"not a timestamp: {text!r}") from error
        return text

    def boolean(self, name: str) -> bool:
        """Returns a Boolean.

        Raises:
            ArtifactError: The field is missing or not a Boolean.
        """
        value = self.value(name)
        if not isinstance(value, bool):
            raise self.error(name, f"expected true or false, not {_abbreviated(value)}")
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        """Returns an integer from `low` to `high`.

        Raises:
            ArtifactError: The field is missing, not an integer, or out of range.
        """
        value = self.value(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(
                name, f"expected an integer from {low} to {high}, not {_abbreviated(value)}"
            )
        return value

    def number(self, name: str) -> float:
        """Returns a finite number.

        Raises:
            ArtifactError: The field is missing or not a finite number.
        """
        value = self.value(name)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not _finite(value):
            raise self.error(name, f"expected a finite number, not {_abbreviated(value)}")
        return value

    def sequence(self, name: str, max_length: int) -> list[Any]:
        """Returns a list.

        Raises:
            ArtifactError: The field is missing, not a list, or too long.
        """
        value = self.value(name)
        if not isinstance(value, list) or len(value) > max_length:
            raise self.error(name, f"expected a list of at most {max_length} elements")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """Returns an object with arbitrary fields.

        Raises:
            ArtifactError: The field is missing or not an object.
        """
        value = self.value(name)
        if not isinstance(value, dict):
            raise self.error(name, f"expected an object, not {_abbreviated(value)}")
        return value

    def numbers(self, name: str) -> dict[str, float]:
        """Returns an object whose fields are finite numbers.

        Raises:
            ArtifactError: The field is missing or not an object, or one of its fields is not a
                finite number.
        """
        inner = Fields(self.mapping(name), f"{self._where}, {name}")
        return {key: inner.number(key) for key in inner.raw}

    def texts(self, name: str) -> dict[str, str]:
        """Returns an object whose fields are strings.

        Raises:
            ArtifactError: The field is missing or not an object, or one of its fields is not a
                string.
        """
        inner = Fields(self.mapping(name), f"{self._where}, {name}")
        return {key: inner.text(key) for key in inner.raw}


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer that is too large for a float
        return False


def _abbreviated(value: object) -> str:
    """Returns the representation of a value for an error message, truncated if it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
