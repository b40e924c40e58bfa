"""A gateway with a feedback log, and clients of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

import marquee
from gateway.calls import TIMEOUT_S
from marquee_services.gateway.gateway import Gateway

TOKEN = "token-of-the-administrator"  # noqa: S105 - of the tests


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    """The file with the administrator's token."""
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


async def start_with_feedback(services: Any, url: str, **changes: Any) -> Gateway:
    """Start a gateway that follows a log, and wait until it has read it."""
    settings = {"feedback": url, "feedback_poll_interval": 0.02, "feedback_timeout": 60.0}
    gateway: Gateway = await services.start_gateway(**{**settings, **changes})
    await services.until_full(gateway)
    feedback = gateway.feedback
    assert feedback is not None
    await services.until(lambda: feedback.ready)
    return gateway


@pytest_asyncio.fixture
async def replicas(
    services: Any, feedback_url: str, token_file: Path
) -> AsyncIterator[list[Gateway]]:
    """Two gateways that follow the same log."""
    started = [
        await start_with_feedback(services, feedback_url, admin_token_file=str(token_file))
        for _ in range(2)
    ]
    yield started
    for gateway in started:
        await gateway.stop(0.5)


def client_of(gateway: Gateway, **options: Any) -> marquee.AsyncClient:
    """Return a client of one gateway that sends the administrator's token."""
    address = f"127.0.0.1:{gateway.bound.port}"
    return marquee.AsyncClient(address, **{"timeout": TIMEOUT_S, "token": TOKEN, **options})


@pytest_asyncio.fixture
async def clients(replicas: list[Gateway]) -> AsyncIterator[list[marquee.AsyncClient]]:
    """A client of each of the two gateways."""
    opened = [client_of(gateway) for gateway in replicas]
    yield opened
    for client in opened:
        await client.close()
