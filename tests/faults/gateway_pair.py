"""Two gateways whose release needs no backends, and clients with default settings."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import marquee
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import GATEWAY
from marquee_services.processes import ServiceProcess
from toy.release import publish_toy


@dataclass
class Calls:
    """How the calls of one kind of client ended.

    Attributes:
        seconds: Latency of each answered call in seconds.
        errors: The errors of the failed calls.
    """

    seconds: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


@contextmanager
def two_gateways(folder: Path) -> Iterator[list[ServiceProcess]]:
    """Runs two gateways whose release needs no backends, and kills them at the end."""
    store = ReleaseStore(str(folder / "without-backends"))
    store.promote(publish_toy(store, folder / "made", backends=()).release_id)
    with ExitStack() as stack:
        gateways = []
        for number in range(2):
            options = {"store": store.url, "cache-dir": str(folder / "cache")}
            process = ServiceProcess(GATEWAY, options, folder / f"gateway-{number}.log")
            stack.callback(process.kill)
            gateways.append(process)
        for gateway in gateways:
            gateway.wait_until_serving()
        yield gateways


def target_of(gateways: Sequence[ServiceProcess]) -> str:
    """Returns the gRPC target of gateways."""
    return "ipv4:" + ",".join(gateway.address for gateway in gateways)


def call_from_threads(target: str, stop: threading.Event, calls: Calls) -> None:
    """Calls from four threads, one of which makes longer pauses between its calls."""

    def user(number: int) -> None:
        while not stop.wait(0.3 if number == 0 else 0.02):
            start = time.monotonic()
            try:
                client.recommend(f"nobody-{number}", page_size=10)
            except marquee.MarqueeError as error:
                calls.errors.append(repr(error))
            else:
                calls.seconds.append(time.monotonic() - start)

    with marquee.Client(target) as client:
        threads = [threading.Thread(target=user, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def call_from_tasks(target: str, stop: threading.Event, calls: Calls) -> None:
    """Calls from four tasks, one of which makes longer pauses between its calls."""

    async def user(client: marquee.AsyncClient, number: int) -> None:
        while not stop.is_set():
            start = time.monotonic()
            try:
                await client.recommend(f"nobody-{number}", page_size=10)
            except marquee.MarqueeError as error:
                calls.errors.append(repr(error))
            else:
                calls.seconds.append(time.monotonic() - start)
            await asyncio.sleep(0.3 if number == 0 else 0.02)

    async def users() -> None:
        async with marquee.AsyncClient(target) as client:
            await asyncio.gather(*(user(client, number) for number in range(4)))

    asyncio.run(users())
