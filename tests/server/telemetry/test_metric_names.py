"""Every server exposes the metrics that alerts and dashboards need on its metrics port."""

from __future__ import annotations

import asyncio
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

import marquee
from marquee_core.service_names import BACKENDS, GATEWAY, STANDALONE
from observe.metric_names import AFTER_AN_ANSWER, AT_START
from toy.release import TOY_LOADERS
from toy.services import Services, standalone_server
from toy.waiting import WAIT_S

_TIMEOUT_S = 60.0


async def scrape(port: int) -> dict[str, list[dict[str, str]]]:
    """Return the labels of the samples that a server exposes, by name."""

    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=_TIMEOUT_S) as page:
            text: str = page.read().decode()
        return text

    found: dict[str, list[dict[str, str]]] = {}
    for family in text_string_to_metric_families(await asyncio.to_thread(read)):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(dict(sample.labels))
    return found


@pytest_asyncio.fixture
async def standalone(
    services: Services, tmp_path: Path, free_port: Callable[[], int]
) -> AsyncIterator[tuple[Any, int]]:
    """A standalone server over the store of the three services, and its metrics port."""
    port = free_port()
    async with standalone_server(services, tmp_path, port) as gateway:
        yield gateway, port


async def test_every_server_exposes_what_operators_need(
    services: Services, standalone: tuple[Any, int], free_port: Callable[[], int]
) -> None:
    """All metrics exist from the start, in the three services and in the standalone server."""
    ports = {}
    for backend in BACKENDS:
        await services.scoring[backend].stop()
        ports[backend] = free_port()
        await services.start_backend(backend, metrics_port=ports[backend])
    ports[GATEWAY], ports[STANDALONE] = free_port(), standalone[1]
    gateway = await services.start_gateway(metrics_port=ports[GATEWAY])
    await services.until_full(gateway)
    for name, port in ports.items():
        assert AT_START[name] - set(await scrape(port)) == set(), name
    for server in (gateway, standalone[0]):
        async with marquee.AsyncClient(
            f"127.0.0.1:{server.bound.port}", timeout=_TIMEOUT_S
        ) as client:
            answer = await client.recommend(ratings={"i1": 5.0})
            assert not answer.source.degraded
    for name, port in ports.items():
        assert AFTER_AN_ANSWER[name] - set(await scrape(port)) == set(), name
    await gateway.stop(0.5)


async def test_the_standalone_server_measures_its_backends(
    standalone: tuple[Any, int],
) -> None:
    """Queues and models of both backends have the same labels as in separate services."""
    gateway, port = standalone
    async with marquee.AsyncClient(f"127.0.0.1:{gateway.bound.port}", timeout=_TIMEOUT_S) as client:
        await client.recommend(ratings={"i1": 5.0})
    found = await scrape(port)
    queues = {(labels["backend"], labels["queue"]) for labels in found["marquee_queue_users"]}
    assert queues == {(backend, queue) for backend in BACKENDS for queue in ("rank", "score")}
    models = {labels["model"] for labels in found["marquee_model_seconds_count"]}
    for backend in BACKENDS:
        assert models & set(TOY_LOADERS[backend]), backend


async def test_a_release_that_one_backend_refuses_is_reported(
    services: Services, standalone: tuple[Any, int]
) -> None:
    """An alert needs the release and the backend, although the gateway can load its own files."""
    bad = await services.publish(seed=3, promote=False)
    folder = Path(services.store.url) / "releases" / bad.release_id
    broken = next(f for f in (folder / "models" / "ease").rglob("*") if f.is_file())
    broken.write_bytes(b"damaged")
    production = Path(services.store.url) / "production"
    # A promotion would refuse it as well.
    text = production.read_text().replace(services.first.release_id, bad.release_id, 1)
    production.write_text(text)
    async with asyncio.timeout(WAIT_S):
        while "marquee_release_refused" not in (found := await scrape(standalone[1])):
            await asyncio.sleep(0.02)
    (labels,) = found["marquee_release_refused"]
    assert labels["release_id"] == bad.release_id
    assert "ease" in labels["reason"]
    assert {"release_id": services.first.release_id} in found["marquee_release_in_service"]
    assert {"release_id": bad.release_id} not in found["marquee_release_loaded"]
