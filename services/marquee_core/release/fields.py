"""Reads fields of parsed JSON, and checks their types and ranges."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from marquee_core.errors import ArtifactError

MAX_TEXT = 4096
"""Most characters in a text of a manifest."""


class Fields:
    """The fields of a JSON object; each method reads one, and says where it is if it is wrong."""

    def __init__(self, raw: object, where: str) -> None:
        """Takes the object and its place in the document, for errors.

        Raises:
            ArtifactError: It is not an object.
        """
        if not isinstance(raw, dict):
            raise ArtifactError(f"damaged {where}: not an object")
        self.raw: Mapping[str, Any] = raw
        self._where = where

    def check_names(self, names: frozenset[str]) -> None:
        """Checks that the object has no other fields.

        Raises:
            ArtifactError: It has another one.
        """
        for name in self.raw:
            if name not in names:
                raise self.error(name[:100], "unknown field")

    def error(self, name: str, reason: str) -> ArtifactError:
        """Returns the error that a field is wrong."""
        return ArtifactError(f"damaged {self._where}: {name}: {reason}")

    def value(self, name: str) -> Any:
        """Returns a field of any type.

        Raises:
            ArtifactError: It is missing.
        """
        if name not in self.raw:
            raise self.error(name, "it is missing")
        return self.raw[name]

    def text(self, name: str, longest: int = MAX_TEXT) -> str:
        """Returns a text.

        Raises:
            ArtifactError: It is missing, no text, or too long.
        """
        value = self.value(name)
        if not isinstance(value, str):
            raise self.error(name, f"expected a text, not {_shown(value)}")
        if len(value) > longest:
            raise self.error(name, f"longer than {longest} characters")
        return value

    def time(self, name: str) -> str:
        """Returns a time in RFC 3339.

        Raises:
            ArtifactError: It is missing or no such time.
        """
        text = self.text(name, 64)
        try:
            datetime.fromisoformat(text)
        except ValueError as error:
            raise self.error(name, f"not a time: {text!r}") from error
        return text

    def truth(self, name: str) -> bool:
        """True or false.

        Raises:
            ArtifactError: It is missing or neither.
        """
        value = self.value(name)
        if not isinstance(value, bool):
            raise self.error(name, f"expected true or false, not {_shown(value)}")
        return value

    def integer(self, name: str, low: int, high: int) -> int:
        """Returns an integer within limits.

        Raises:
            ArtifactError: It is missing, no integer, or outside the limits.
        """
        value = self.value(name)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            raise self.error(name, f"expected an integer of {low} to {high}, not {_shown(value)}")
        return value

    def number(self, name: str) -> float:
        """Returns a finite number.

        Raises:
            ArtifactError: It is missing or no finite number.
        """
        value = self.value(name)
        if not isinstance(value, (int, float)) or isinstance(value, bool) or not _finite(value):
            raise self.error(name, f"expected a number, not {_shown(value)}")
        return value

    def sequence(self, name: str, longest: int) -> list[Any]:
        """Returns a list.

        Raises:
            ArtifactError: It is missing, no list, or too long.
        """
        value = self.value(name)
        if not isinstance(value, list) or len(value) > longest:
            raise self.error(name, f"expected a list of at most {longest} elements")
        return value

    def mapping(self, name: str) -> dict[str, Any]:
        """Returns an object with any fields.

        Raises:
            ArtifactError: It is missing or no object.
        """
        value = self.value(name)
        if not isinstance(value, dict):
            raise self.error(name, f"expected an object, not {_shown(value)}")
        return value

    def numbers(self, name: str) -> dict[str, float]:
        """Returns an object whose fields are finite numbers.

        Raises:
            ArtifactError: It is missing, no object, or a field is no finite number.
        """
        inner = Fields(self.mapping(name), f"{self._where}, {name}")
        return {key: inner.number(key) for key in inner.raw}

    def texts(self, name: str) -> dict[str, str]:
        """Returns an object whose fields are texts.

        Raises:
            ArtifactError: It is missing, no object, or a field is no text.
        """
        inner = Fields(self.mapping(name), f"{self._where}, {name}")
        return {key: inner.text(key) for key in inner.raw}


def _finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False


def _shown(value: object) -> str:
    """Returns a value as it appears in an error, shortened."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}…"
