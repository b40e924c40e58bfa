"""The start of the command line: an interrupt while modules are imported prints nothing."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from marquee_start import ended_by_interrupt

# Runs `marquee`, which sends itself SIGINT when it begins to import a given module.
START = """
import importlib.abc, os, signal, sys

class Interrupt(importlib.abc.MetaPathFinder):
    def __init__(self, module):
        self.module = module

    def find_spec(self, name, path, target=None):
        if name == self.module:
            os.kill(os.getpid(), signal.SIGINT)

# SIGINT may be ignored here: a shell ignores it in the background processes that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Interrupt(sys.argv.pop(1)))
import marquee_start
marquee_start.main()
"""


@pytest.mark.parametrize(
    ("module", "arguments"),
    [
        ("marquee", ["status"]),
        ("marquee.cli._commands", ["status"]),
        ("marquee_services.commands.releases", ["releases", "list"]),
        ("marquee_trainer.commands.settings", ["train"]),
        ("marquee_trainer.data.errors", ["train", "--data", "sample"]),
    ],
)
def test_an_interrupt_while_modules_are_imported_is_silent(
    module: str, arguments: list[str]
) -> None:
    """The exit code is that of any interrupted command, and there is no traceback."""
    command = [sys.executable, "-c", START, module, *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "")


def test_other_signal_handlers_are_preserved() -> None:
    """A handler of the program is left in place, and the default one is restored afterwards."""
    before = signal.getsignal(signal.SIGINT)
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        with ended_by_interrupt():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with ended_by_interrupt():
            assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
