"""Starts the `marquee` command, and makes Ctrl-C end it silently while modules are imported.

It is a separate package because importing `marquee` takes several tenths of a second. An interrupt
during that time would otherwise print a traceback. The package imports nothing else of the project
at the top level. After this file, read `marquee/cli/__init__.py`.
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
    """Makes SIGINT end the process immediately, for code that only imports modules.

    A `KeyboardInterrupt` would not be reliable, because interrupted modules, and libraries that
    catch it, raise other errors instead. If the program has installed its own handler, or outside
    the main thread, this has no effect.
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
