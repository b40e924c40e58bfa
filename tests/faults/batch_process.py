"""A caller of BatchRecommend in a separate process: the same batch again and again.

The process of the fault run must not do this itself. It also forwards calls to a replica, and
reading the answers would keep its interpreter busy: calls would wait for the caller of the batch
instead of for the system.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import IO

import marquee

# Longer than any run.
_TIMEOUT_S = 600.0


class RunningBatch:
    """A batch in another process.

    Attributes:
        answers: The number of answers so far.
    """

    def __init__(self, process: subprocess.Popen[str]) -> None:
        """Starts to count the answers that the process reports, a line each."""
        self.answers = 0
        self._process = process
        assert process.stdout is not None
        self._reader = threading.Thread(target=self._count, args=(process.stdout,))
        self._reader.start()

    @property
    def has_failed(self) -> bool:
        """Whether the process has ended; its error is on stderr."""
        return self._process.poll() is not None

    def stop(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        self._reader.join()

    def _count(self, reports: IO[str]) -> None:
        for _ in reports:
            self.answers += 1


@contextmanager
def running_batch(address: str, users: Sequence[str], page_size: int) -> Iterator[RunningBatch]:
    """Sends batches, with the metadata of the items, until the context ends.

    Args:
        address: The gateway.
        users: The subjects of a batch.
        page_size: The number of items for each subject.

    Yields:
        The running batch.
    """
    with subprocess.Popen(
        [sys.executable, "-m", "faults.batch_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    ) as process:
        assert process.stdin is not None
        json.dump({"address": address, "users": users, "page_size": page_size}, process.stdin)
        process.stdin.close()
        running = RunningBatch(process)
        try:
            yield running
        finally:
            running.stop()


def _main() -> None:
    plan = json.load(sys.stdin)
    with marquee.Client(plan["address"]) as client:
        while True:
            for answer in client.batch_recommend(
                plan["users"],
                page_size=plan["page_size"],
                include_metadata=True,
                timeout=_TIMEOUT_S,
            ):
                answer.unwrap()
                sys.stdout.write("\n")
                sys.stdout.flush()


if __name__ == "__main__":
    _main()
