"""Imports TensorFlow without its start-up messages.

TensorFlow reports its build options on stderr while it is imported, before its own log level
applies, so the level alone does not suppress them. Call `import_tensorflow` before anything else
imports TensorFlow or Keras. Its results are the same as without this module.
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

# Informational lines of absl's log ("I0000 00:00:… port.cc:153] oneDNN custom operations are on"),
# the line that follows the one about CPU instructions, and absl's note about its own start.
_STARTUP_LINE = re.compile(
    rb"I\d{4} \d\d:\d\d:"
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: I "
    rb"|To enable the following instructions:"
    rb"|WARNING: All log messages before absl::InitializeLog\(\)"
)


def import_tensorflow() -> Any:
    """Imports TensorFlow and drops its informational messages.

    Warnings and errors that are written during the import still reach stderr.

    Returns:
        The module `tensorflow`.

    Raises:
        ImportError: TensorFlow is not installed or cannot be imported.
    """
    # Otherwise TensorFlow takes all memory of a GPU, and another process on it gets none.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    # Level 2 reports errors only. It applies to messages after the import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with nullcontext() if "tensorflow" in sys.modules else without_startup_lines():
        import tensorflow
    return tensorflow


@contextmanager
def without_startup_lines() -> Iterator[None]:
    """Holds back what is written to file descriptor 2, then writes it without start-up lines.

    TensorFlow's C++ code writes to the descriptor itself, so replacing `sys.stderr` would not do.
    """
    try:
        stderr = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    with tempfile.TemporaryFile() as held_back:
        sys.stderr.flush()
        os.dup2(held_back.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            held_back.seek(0)
            for line in held_back:
                if not _STARTUP_LINE.match(line):
                    os.write(2, line)
