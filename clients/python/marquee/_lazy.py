"""Modules that are imported on first use.

Importing gRPC and protobuf takes about a quarter of a second. Lazy imports save this time in a
program that imports the client but makes no call, such as `marquee --help`.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any


class LazyModule(ModuleType):
    """A placeholder for a module that imports it when one of its attributes is first accessed.

    Args:
        name: The full name of the module to import.
    """

    def __getattr__(self, name: str) -> Any:
        value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)
        return value
