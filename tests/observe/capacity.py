"""Measures the figures of CAPACITY.md for your own release: `make capacity ARGS=STORE`.

CPU time and memory are measured per process, so other load on the machine has little effect.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import tempfile
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import psutil

from marquee import AsyncClient, MarqueeError
from marquee_core.release.contents import load_users
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import CF, GATEWAY, INFERENCE
from marquee_services.processes import ServiceGroup
from termination import interrupt_on_sigterm

_SERVICES = (GATEWAY, CF, INFERENCE)
_IN_FLIGHT = 16
_VISITOR_RATINGS = 30
_MIB = 2**20


@dataclass(frozen=True)
class Cost:
    """The cost of one kind of call.

    Attributes:
        kind: Name of the kind.
        cpu_ms: CPU time per call in milliseconds, by service.
        failed: Number of calls that failed or were degraded.
    """

    kind: str
    cpu_ms: dict[str, float]
    failed: int


async def measure(address: str, pids: dict[str, int], users: list[str], calls: int) -> list[Cost]:
    """Measures the CPU time of cached answers, computed answers and answers for visitors.

    Args:
        address: The gateway's address.
        pids: The process id of each service.
        users: Ids of users in the release.
        calls: Number of calls of each kind.
    """
    chosen = random.Random(0)  # noqa: S311 - load, not secrets
    async with AsyncClient(address, timeout=60) as client:
        items = [item.item_id for item in await client.recommend(users[0], page_size=100)]
        few = users[:50]

        def visitor() -> Coroutine[Any, Any, Any]:
            rated = chosen.sample(items, min(_VISITOR_RATINGS, len(items)))
            return client.recommend(ratings={item: chosen.randint(1, 5) for item in rated})

        kinds: dict[str, Callable[[], Coroutine[Any, Any, Any]]] = {
            "cached answer": lambda: client.recommend(chosen.choice(few)),
            "known user, computed": lambda: client.recommend(chosen.choice(users), diversity=0.2),
            f"visitor with {_VISITOR_RATINGS} ratings": visitor,
        }
        costs = []
        for kind, call in kinds.items():
            await _calls(call, calls // 4)
            before = {name: _cpu_s(pid) for name, pid in pids.items()}
            failed = await _calls(call, calls)
            spent = {
                name: 1000 * (_cpu_s(pid) - before[name]) / calls for name, pid in pids.items()
            }
            costs.append(Cost(kind, spent, failed))
    return costs


async def _calls(call: Callable[[], Coroutine[Any, Any, Any]], count: int) -> int:
    """Makes concurrent calls, and returns how many failed or were degraded."""
    left, failed = itertools.count(), 0

    async def work() -> None:
        nonlocal failed
        while next(left) < count:
            try:
                answer = await call()
                failed += answer.source.degraded
            except MarqueeError:
                failed += 1

    await asyncio.gather(*(work() for _ in range(_IN_FLIGHT)))
    return failed


def _cpu_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


@click.command()
@click.argument("store")
@click.option("--calls", default=2000, help="Number of calls of each kind.")
def run(store: str, calls: int) -> None:
    """Prints the memory and the CPU per call of each service, for the release in production."""
    releases = ReleaseStore(store)
    production = releases.production()
    if production is None:
        raise click.ClickException(f"no release is in production in {store}")
    manifest = releases.manifest(production.release_id)
    data, size = manifest.data, sum(entry.size for entry in manifest.files.values())
    with tempfile.TemporaryDirectory(prefix="marquee-capacity-") as made:
        users = load_users(releases, manifest, Path(made) / "users")
        ids = users.ids(range(len(users)))
        options: dict[str, str | None] = {"cache-dir": str(Path(made) / "cache")}
        # A long timeout, so that answers are not degraded on a busy machine.
        timeout: dict[str, str | None] = {"backend-timeout": "60"}
        with ServiceGroup(store, Path(made), options=options, gateway_options=timeout) as group:
            processes = {GATEWAY: group.gateway, CF: group.cf, INFERENCE: group.inference}
            pids = {name: processes[name].pid for name in _SERVICES}
            costs = asyncio.run(measure(group.gateway.address, pids, ids, calls))
            click.echo(
                f"{data.user_count:,} users, {data.item_count:,} items, "
                f"{data.rating_count:,} ratings, release {size / _MIB:.0f} MiB"
            )
            click.echo(f"{'':<32}" + "".join(f"{name:>12}" for name in _SERVICES))
            for label, field in (
                ("resident memory, MiB", "rss"),
                ("of which mapped files, MiB", "shared"),
            ):
                values = [
                    getattr(psutil.Process(pids[name]).memory_info(), field) / _MIB
                    for name in _SERVICES
                ]
                click.echo(f"{label:<32}" + "".join(f"{value:>12.0f}" for value in values))
            for cost in costs:
                row = "".join(f"{cost.cpu_ms[name]:>12.2f}" for name in _SERVICES)
                note = f"  ({cost.failed} failed or degraded)" if cost.failed else ""
                click.echo(f"{cost.kind + ', CPU ms':<32}{row}{note}")


if __name__ == "__main__":
    interrupt_on_sigterm()
    run()
