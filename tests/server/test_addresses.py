"""Addresses on which a server cannot listen."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from marquee_core.service_names import CF
from marquee_services.cf.models import CF_SCORERS
from marquee_services.scoring.main import start
from marquee_services.scoring.settings import ScoringSettings


async def error_of(address: str, store: Path) -> str:
    """Return the error of a server that is to listen on an address."""
    settings = ScoringSettings(store=str(store), listen=address)
    with pytest.raises(OSError, match="cannot listen on") as caught:
        await start(settings, CF, CF_SCORERS)
    return str(caught.value)


async def test_the_error_says_why_a_server_cannot_listen(tmp_path: Path) -> None:
    """An address in use, of another machine, without a folder and of an unknown host differ."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        used = f"127.0.0.1:{other.getsockname()[1]}"
        assert await error_of(used, tmp_path) == f"cannot listen on {used}: Address already in use"
    # An address for documentation, which no machine has (RFC 5737).
    foreign = "192.0.2.1:50051"
    assert "Cannot assign requested address" in await error_of(foreign, tmp_path)
    assert "No such file or directory" in await error_of(f"unix:{tmp_path}/no/socket", tmp_path)
    unknown = "host.invalid:50051"
    error = await error_of(unknown, tmp_path)
    assert error.startswith(f"cannot listen on {unknown}: ")
    assert "unknown cause" not in error
