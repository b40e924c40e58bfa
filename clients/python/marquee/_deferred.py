"""Modules that are imported at their first use.

gRPC and protobuf take a fifth of a second to import. A program that only names the client, such as
one that may not call it in this run, does not wait for them.
"""

from __future__ import annotations

from importlib import import_module
from types import ModuleType
from typing import Any


class Deferred(ModuleType):
    """Stands for a module and imports it when an attribute is first asked for.

    Args:
        name: The module's full name.
    """

    def __getattr__(self, name: str) -> Any:
        value = getattr(import_module(self.__name__), name)
        setattr(self, name, value)
        return value
