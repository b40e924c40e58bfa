"""TensorFlow is imported without its start-up messages but with its errors."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from marquee_core.scorers.quiet_tensorflow import without_startup_lines

STARTUP = (
    b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
    b"I0000 00:00:1700000000.123456  1234 port.cc:153] oneDNN custom operations are on.\n"
    b"2024-01-01 00:00:00.000000: I tensorflow/core/util/port.cc:153] oneDNN is on.\n"
    b"To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow.\n"
)


@pytest.mark.parametrize(
    "imports", ["marquee_services.inference.models", "marquee_trainer.models.registry"]
)
def test_nothing_is_written_to_stderr(imports: str) -> None:
    """Neither the inference service nor the trainer shows the start-up messages of TensorFlow."""
    code = (
        f"import {imports}, marquee_core.scorers.saved_model as module; module.tf.constant(1) + 1"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stderr == ""


def test_only_startup_lines_are_dropped(capfd: pytest.CaptureFixture[str]) -> None:
    """Other lines, including those of Python code, are written when the import ends."""
    with without_startup_lines():
        os.write(2, STARTUP + b"W0000 00:00:1700000000.123456  1234 x.cc:1] a warning\n")
        print("from Python", file=sys.stderr)  # noqa: T201 - the line that must come through
    lines = capfd.readouterr().err.splitlines()
    assert sorted(line.rpartition("] ")[2] for line in lines) == ["a warning", "from Python"]


def test_messages_of_a_failed_import_are_shown(capfd: pytest.CaptureFixture[str]) -> None:
    """The error is raised, and what was written before it is shown."""

    def fail() -> None:
        with without_startup_lines():
            os.write(2, STARTUP + b"the library is damaged\n")
            raise ImportError("cannot load")

    with pytest.raises(ImportError, match="cannot load"):
        fail()
    assert capfd.readouterr().err == "the library is damaged\n"
