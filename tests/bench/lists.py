"""A process that computes lists as `marquee batch --store` does, and measures its CPU time."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from marquee_services.lists.output import ListFiles
from marquee_services.lists.request import ListRequest
from marquee_services.lists.worker import ListWorker, Part


def measure(store: str, release_id: str, page_size: int, user_ids: list[str]) -> dict[str, float]:
    """Loads a release, then computes and writes lists for users, and measures the second step.

    Args:
        store: URL of the release store.
        release_id: The release.
        page_size: Items per list.
        user_ids: The users.

    Returns:
        CPU time (`cpu_s`) and elapsed time (`elapsed_s`) in seconds, without loading.
    """
    with tempfile.TemporaryDirectory(prefix="marquee-bench-") as folder:
        cache = str(Path(folder) / "cache")
        request = ListRequest(store, release_id, page_size, cache_dir=cache)
        worker = ListWorker(request, ListFiles.parse(f"{folder}/lists"))
        # Loads the release and prepares everything that is needed only once.
        worker(Part(0, 0, 1, tuple(user_ids[:1])), lambda _: None)
        part = Part(1, 0, len(user_ids), tuple(user_ids))
        start, cpu = time.perf_counter(), time.process_time()
        worker(part, lambda _: None)
        return {"cpu_s": time.process_time() - cpu, "elapsed_s": time.perf_counter() - start}


if __name__ == "__main__":
    arguments = json.load(sys.stdin)
    sys.stdout.write(json.dumps(measure(**arguments)))
