"""The progress of training: bars on a terminal, and one line per step elsewhere."""

from __future__ import annotations

import io
import re
import sys

import pytest

from marquee_trainer.commands.estimate import PlannedStep
from marquee_trainer.commands.progress import ProgressBar, training_plan
from marquee_trainer.models.model import Epoch

PLAN = [
    PlannedStep("fit mf", "mf", 100, is_search=True),
    PlannedStep("refit mf", "mf", 125),
]


class Terminal(io.StringIO):
    """A text stream that claims to be a terminal."""

    def isatty(self) -> bool:
        """Return True, as for a terminal."""
        return True


def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """A terminal of 120 columns that replaces stderr."""
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    return stream


def test_the_run_and_the_current_step_each_have_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """The bars show the number of the step, its epochs and error, and the times."""
    stream = terminal(monkeypatch)
    with ProgressBar(PLAN) as bar:
        progress = bar.progress()
        progress.on_step("fit mf", 5)
        progress.on_epoch(Epoch(0.9, 0.8123))
        bar.refresh()
        progress.on_step("refit mf", 2)
        bar.refresh()
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())
    assert "step 1 of 2" in shown
    assert "epoch 1 of at most 5, MSE 0.8123" in shown
    assert re.search(r"step 2 of 2 .*0:00 elapsed, at most 0:0\d left", shown)


def test_a_step_that_handles_users_shows_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Precomputing the pages of many users may take minutes, without epochs."""
    stream = terminal(monkeypatch)
    with ProgressBar() as bar:
        progress = bar.progress()
        progress.on_step("publish", 0)
        progress.on_users(1_500, 50_000)
        bar.refresh()
    assert "1,500 of 50,000 users" in stream.getvalue()


def test_the_elapsed_time_is_updated_without_reports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The elapsed time is updated whenever the bars are drawn."""
    stream = terminal(monkeypatch)
    with ProgressBar(PLAN) as bar:
        bar.progress().on_step("fit mf", 0)
        bar._started -= 75
        bar.refresh()
    assert "1:15 elapsed" in re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue())


def test_each_finished_step_leaves_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The line shows the duration and the number of epochs after early stopping."""
    stream = terminal(monkeypatch)
    with ProgressBar(PLAN) as bar:
        progress = bar.progress()
        progress.on_step("fit mf", 5)
        progress.on_epoch(Epoch(0.9, 0.8123))
        progress.on_epoch(Epoch(0.8, 0.8111))
        progress.on_step("evaluate", 0)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", stream.getvalue()).splitlines()
    assert any(re.search(r"fit mf +0\.\d s, 2 epochs, MSE 0\.8111", line) for line in lines)
    assert any(re.search(r"evaluate +0\.\d s", line) for line in lines)


def test_without_a_terminal_each_step_prints_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    """The line shows the elapsed time and, if available, the estimated remaining time."""
    with ProgressBar(PLAN) as bar:
        bar.progress().on_step("fit mf", 5)
        bar.progress().on_epoch(Epoch(0.9, None))
        bar.progress().on_step("refit mf", 5)
        bar.progress().on_step("something else", 0)
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "  0:00  fit mf (step 1 of 2)"
    assert re.fullmatch(r"  0:00  refit mf \(step 2 of 2\), at most 0:0\d left", lines[1])
    assert lines[2] == "  0:00  something else"


def test_the_plan_contains_the_steps_that_training_reports() -> None:
    """The steps are fits, the ensemble, refits, the evaluation, and fits on all ratings if any."""
    names = [step.name for step in training_plan(["mf", "ease"], 10, 100, 125)]
    assert names == [
        "fit mf",
        "fit ease",
        "learn the ensemble",
        "refit mf",
        "refit ease",
        "evaluate",
        "fit on all: mf",
        "fit on all: ease",
    ]
    assert len(training_plan(["mf", "ease"], 10, 100)) == 6


def test_every_step_of_a_budgeted_run_has_a_number_and_an_estimate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """This holds even if refits have a different order than first fits, and a model is left out."""
    plan = training_plan(
        ["ease", "mf", "user_cf"], 10, 100, 125, refit_order=["user_cf", "mf", "ease"]
    )
    steps = ["fit ease", "fit user_cf", "learn the ensemble", "refit user_cf", "refit ease"]
    steps += ["evaluate", "fit on all: user_cf", "fit on all: ease"]
    with ProgressBar(plan) as bar:
        for step in steps:
            bar.progress().on_step(step, 0)
    lines = capsys.readouterr().err.splitlines()
    for number, (line, step) in enumerate(zip(lines, steps, strict=True), start=1):
        total = len(plan) if number == 1 else len(steps)
        assert re.fullmatch(
            rf"  0:00  {step} \(step {number} of {total}\), (about|roughly) 0:\d\d left", line
        )
