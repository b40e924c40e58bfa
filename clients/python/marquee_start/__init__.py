"""Starts the `marquee` command, and lets Ctrl-C end it in silence while it imports modules.

It is a package of its own because importing `marquee` takes some tenths of a second: an interrupt
then would otherwise print the traceback of an import.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTED = 130
"""The exit code of an interrupted command."""


@contextmanager
def ended_by_interrupt() -> Iterator[None]:
    """Lets SIGINT end the process at once, for code that only imports modules.

    An exception could not be relied on: modules that are interrupted half-way, and libraries that
    catch it, turn it into errors of their own. Where the program has set a handler, or in another
    thread than the main one, nothing changes.
    """
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    try:
        signal.signal(signal.SIGINT, _end)
    except ValueError:  # not in the main thread
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def main() -> None:
    """Runs the command line."""
    with ended_by_interrupt():
        from marquee.cli import main as command
    command()


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    os._exit(INTERRUPTED)
