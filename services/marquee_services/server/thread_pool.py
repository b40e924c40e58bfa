"""Thread pools that start all their threads at once."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor


def started_pool(name: str, threads: int) -> ThreadPoolExecutor:
    """Returns a pool whose threads have been started.

    A `ThreadPoolExecutor` starts threads while work arrives, so a server's number of threads and
    its memory would grow until the first overload.

    Args:
        name: Prefix of the threads' names.
        threads: The number of threads.
    """
    pool = ThreadPoolExecutor(threads, thread_name_prefix=name)
    # An idle thread would be reused, so each waits until all have started.
    all_started = threading.Barrier(threads)
    for _ in range(threads):
        pool.submit(all_started.wait)
    return pool
