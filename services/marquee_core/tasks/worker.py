"""The worker process of `processes.py`: `python -m marquee_core.tasks.worker FD`.

It sends `READY`, receives the work and then one task after another, and exits when the pipe closes.
Unlike a process of `multiprocessing`, it does not import the parent's main module, which may be a
notebook, or a script without a main guard.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from multiprocessing.connection import Connection
from multiprocessing.reduction import ForkingPickler

from marquee_core.tasks.task import TaskError

READY, REPORT, RESULT, ERROR = "ready", "report", "result", "error"
"""The kinds of messages that a worker sends."""


def serve(pipe: Connection) -> None:
    """Receives and runs tasks until the pipe closes."""
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        pipe.send((READY, None))
        work = pipe.recv()
        while True:
            task = pipe.recv()
            try:
                answer = (RESULT, work(task, lambda value: pipe.send((REPORT, value))))
            except (BrokenPipeError, ConnectionResetError):
                raise
            except Exception as error:
                answer = (ERROR, _sendable(error))
            pipe.send(answer)


def _sendable(error: Exception) -> Exception:
    """Returns the error, or a `TaskError` with its text if it cannot be pickled."""
    with suppress(Exception):
        if str(ForkingPickler.loads(ForkingPickler.dumps(error))) == str(error):
            return error
    return TaskError(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))
