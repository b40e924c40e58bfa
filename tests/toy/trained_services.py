"""A gateway and the CF service over a release that `marquee train` made, in the test's process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from marquee import AsyncClient
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import CF
from marquee_services.cf.models import CF_SCORERS
from marquee_services.gateway.main import start as start_gateway
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.scoring.main import start as start_scoring
from marquee_services.scoring.settings import ScoringSettings
from toy.waiting import WAIT_S, until


@asynccontextmanager
async def serve_trained(store: ReleaseStore, folder: Path) -> AsyncIterator[AsyncClient]:
    """Run a gateway and a CF service in this process, and yield a client of the gateway.

    Args:
        store: The store, whose release in production needs no other backend.
        folder: A folder for the caches of the servers.
    """
    listen, cache = "127.0.0.1:0", str(folder / "cache")
    cf, follower = await start_scoring(
        ScoringSettings(store=store.url, listen=listen, cache_dir=cache, poll_interval=0.05),
        CF,
        CF_SCORERS,
    )
    following = asyncio.create_task(follower.follow())
    gateway = await start_gateway(
        GatewaySettings(
            store=store.url,
            listen=listen,
            cache_dir=cache,
            poll_interval=0.05,
            probe_interval=0.05,
            backend_timeout=WAIT_S,
            cf_target=f"127.0.0.1:{cf.port}",
        )
    )
    await until(lambda: gateway.releases.loaded and gateway.backends[0].releases)
    await until(lambda: not gateway.releases.pending_reason)
    await until(lambda: gateway.bound.is_serving)
    try:
        async with AsyncClient(f"127.0.0.1:{gateway.bound.port}", timeout=WAIT_S) as client:
            yield client
    finally:
        await gateway.stop(0.5)
        following.cancel()
        await cf.stop(0.5)
