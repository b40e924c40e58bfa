"""The process that computes lists as `marquee batch --store` does, and measures its CPU time."""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path

from marquee_services.lists.output import Output
from marquee_services.lists.request import ListRequest
from marquee_services.lists.worker import ListWorker, Part


def measure(store: str, release_id: str, page_size: int, user_ids: list[str]) -> dict[str, float]:
    """Computes and writes the lists of users in this process, after loading the release.

    Returns:
        CPU seconds (`cpu_s`) and elapsed seconds (`elapsed_s`), without those of loading.
    """
    with tempfile.TemporaryDirectory(prefix="marquee-bench-") as folder:
        cache = str(Path(folder) / "cache")
        request = ListRequest(store, release_id, page_size, cache_dir=cache)
        worker = ListWorker(request, Output.parse(f"{folder}/lists"))
        # Loads the release, and whatever is prepared once.
        worker(Part(0, 0, 1, tuple(user_ids[:1])), lambda _: None)
        part = Part(1, 0, len(user_ids), tuple(user_ids))
        start, cpu = time.perf_counter(), time.process_time()
        worker(part, lambda _: None)
        return {"cpu_s": time.process_time() - cpu, "elapsed_s": time.perf_counter() - start}


if __name__ == "__main__":
    arguments = json.load(sys.stdin)
    sys.stdout.write(json.dumps(measure(**arguments)))
