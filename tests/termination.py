"""Ends commands that start processes, such as benchmarks and fault runs, in order on SIGTERM."""

from __future__ import annotations

import signal


def interrupt_on_sigterm() -> None:
    """Makes SIGTERM raise KeyboardInterrupt, like Ctrl-C, so that started processes are stopped.

    By default, SIGTERM would end the command at once, and its servers would go on running.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
