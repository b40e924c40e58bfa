"""The versions of the libraries on which training results depend."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version

# TensorFlow is distributed under several names, of which one is installed.
_TENSORFLOW = ("tensorflow-cpu", "tensorflow", "tensorflow-rocm", "tensorflow-intel")
_LIBRARIES = (*_TENSORFLOW, "keras", "numba", "numpy", "scipy", "marquee-recommender")


@cache
def _versions() -> Mapping[str, str]:
    found = {}
    for name in _LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def library_versions() -> dict[str, str]:
    """The versions of the installed ones of these libraries, by distribution name."""
    return dict(_versions())
