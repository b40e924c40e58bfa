"""Progress bars: one for each step on a terminal, one line for each step elsewhere."""

from __future__ import annotations

import io
import sys

import pytest

from marquee_trainer.commands.progress import ProgressBar
from marquee_trainer.models.model import Epoch


class Terminal(io.StringIO):
    """A text stream that says it is a terminal."""

    def isatty(self) -> bool:
        """True, as for a terminal."""
        return True


def test_each_step_of_training_has_a_bar_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bar counts epochs, shows the error, and is complete if early stopping ends the fit."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with ProgressBar() as bar:
        progress = bar.progress()
        progress.on_step("fit mf", 5)
        progress.on_epoch(Epoch(0.9, 0.8123))
        progress.on_epoch(Epoch(0.8, 0.8111))
        progress.on_step("evaluate", 0)
    lines = terminal.getvalue().replace("\n", "\r").split("\r")
    last = [line for line in lines if line.startswith("fit mf")][-1]
    assert "2/2" in last
    assert "MSE 0.8111" in last
    assert any(line.startswith("evaluate") and "1/1" in line for line in lines)


def test_without_a_terminal_each_step_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Logs are not filled with bars."""
    with ProgressBar() as bar:
        bar.progress().on_step("fit mf", 5)
        bar.progress().on_epoch(Epoch(0.9, None))
    assert capsys.readouterr().err == "  fit mf\n"
