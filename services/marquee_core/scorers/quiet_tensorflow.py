"""Imports TensorFlow without its start-up messages.

TensorFlow writes its build options to stderr while it is imported, before its log level takes
effect, so setting the level is not enough to suppress them. Call `import_tensorflow` before
anything else imports TensorFlow or Keras.
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
# the continuation of the line about CPU instructions, and absl's note about its initialisation.
_STARTUP_LINE = re.compile(
    rb"I\d{4} \d\d:\d\d:"
    rb"|\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+: I "
    rb"|To enable the following instructions:"
    rb"|WARNING: All log messages before absl::InitializeLog\(\)"
)


def import_tensorflow() -> Any:
    """Imports TensorFlow and drops its informational messages.

    Warnings and errors that are written during the import are kept.

    Returns:
        The `tensorflow` module.

    Raises:
        ImportError: TensorFlow is not installed or cannot be imported.
    """
    # Otherwise TensorFlow allocates all memory of a GPU, and no other process can use it.
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    # Level 2 logs errors only. It takes effect after the import.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    with nullcontext() if "tensorflow" in sys.modules else without_startup_lines():
        import tensorflow
    return tensorflow


@contextmanager
def without_startup_lines() -> Iterator[None]:
    """Buffers what is written to file descriptor 2, then writes it without start-up lines.

    TensorFlow's C++ code writes to the descriptor directly, so replacing `sys.stderr` has no
    effect on it.
    """
    try:
        stderr = os.dup(2)
    except OSError:  # stderr is closed
        yield
        return
    with tempfile.TemporaryFile() as buffer:
        sys.stderr.flush()
        os.dup2(buffer.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
            os.close(stderr)
            buffer.seek(0)
            for line in buffer:
                if not _STARTUP_LINE.match(line):
                    os.write(2, line)
