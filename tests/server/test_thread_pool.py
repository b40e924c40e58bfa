"""Thread pools: when their threads start."""

from __future__ import annotations

import threading

from marquee_services.server.thread_pool import started_pool
from toy.waiting import wait_until


def _threads() -> set[str]:
    names = (thread.name for thread in threading.enumerate())
    return {name for name in names if name.startswith("started")}


def test_all_threads_start_at_once() -> None:
    """A burst of work starts no further threads."""
    pool = started_pool("started", 3)
    wait_until(lambda: len(_threads()) == 3, what="three threads")
    before = _threads()
    for done in [pool.submit(threading.Event().wait, 0.001) for _ in range(50)]:
        done.result(60)
    assert _threads() == before
    pool.shutdown()
