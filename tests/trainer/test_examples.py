"""The notebooks in `trainer/examples` run, and contain no results of an earlier run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import nbformat
import pytest

from locations import PROJECT

reader = cast(Any, nbformat.read)
NOTEBOOKS = sorted((PROJECT / "trainer/examples").glob("*.ipynb"))
WAIT_S = 240  # Generous: the notebook takes about 30 seconds.

# Run in a separate process, so that its event loop and kernel do not affect this one.
RUN = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=200, kernel_name="python3").execute()
nbformat.write(notebook, sys.argv[2])
"""


def test_there_are_notebooks() -> None:
    """The tests below have something to run."""
    assert [path.name for path in NOTEBOOKS] == ["quickstart.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_stored_without_outputs(path: Path) -> None:
    """Results in git would be out of date, and would change with every run."""
    notebook: Any = reader(path, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert not cell.outputs
            assert cell.execution_count is None


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path) -> None:
    """Every cell runs, and tables are shown as HTML."""
    executed = tmp_path / "executed.ipynb"
    environment = os.environ | {"TMPDIR": str(tmp_path), "IPYTHONDIR": str(tmp_path / "ipython")}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(path), str(executed)],
        check=False,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        env=environment,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    cells = {cell.id: cell for cell in reader(executed, as_version=4).cells}
    for name in ("load", "evaluate", "serve", "visitor", "batch"):
        (output,) = cells[name].outputs
        assert "<table" in output.data["text/html"], name
    assert "ensemble" in cells["evaluate"].outputs[0].data["text/plain"]
