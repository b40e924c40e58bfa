"""Fixtures shared by several test folders, and the options of the contract tests."""

from __future__ import annotations

import gc
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import grpc
import pytest
import pytest_asyncio
import structlog
from hypothesis import settings as hypothesis_settings
from structlog.testing import capture_logs

import ports
from toy.certificates import Authority
from toy.postgresql import PostgreSQL, programs
from toy.services import BackgroundLoop, Services, toy_services

# Hypothesis fails an example that exceeds its deadline of 200 ms, which may happen on a loaded
# machine.
hypothesis_settings.register_profile("marquee", deadline=None)
hypothesis_settings.load_profile("marquee")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Adds the options of the contract tests."""
    group = parser.getgroup("contract", "the server that the contract tests call")
    group.addoption("--address", help="HOST:PORT of a gateway, or of a proxy in front of one")
    group.addoption("--ca", help="PEM file of the authority that issued its certificate (TLS)")
    group.addoption("--user", help="id of a user who is in its release")


def pytest_collection_finish() -> None:
    """Exempts the objects created by imports from garbage collection."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def no_collections_of_servers() -> Iterator[None]:
    """Stops in-process servers from collecting garbage after they have loaded a release.

    With TensorFlow and thousands of tests loaded, each collection would take half a second.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("marquee_services.server.releases.follower.return_free_memory", lambda: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def private_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Gives the servers under test a cache folder of their own instead of the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MARQUEE_CACHE_DIR", str(tmp_path_factory.mktemp("copies")))
        yield


@pytest.fixture
def log_lines() -> Iterator[list[structlog.typing.EventDict]]:
    """What the test logs at any level, however other tests have configured logging.

    A logger keeps the configuration of its first use, so the loggers of modules are reset as well.
    """
    before = structlog.get_config()
    structlog.reset_defaults()
    for name, module in list(sys.modules.items()):
        if name.startswith("marquee_"):
            logger = vars(module).get("_log")
            if logger is not None:
                vars(logger).pop("bind", None)
    with capture_logs() as lines:
        yield lines
    structlog.configure(**before)


@pytest_asyncio.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    """The three services over a toy release, started for this test."""
    async with toy_services(tmp_path) as running:
        yield running


@pytest_asyncio.fixture
async def channel(services: Services) -> AsyncIterator[grpc.aio.Channel]:
    """A plaintext channel to the gateway."""
    async with grpc.aio.insecure_channel(services.address) as opened:
        yield opened


@pytest.fixture(scope="session")
def background_loop() -> Iterator[BackgroundLoop]:
    """An event loop in a thread, for servers that live as long as the session."""
    loop = BackgroundLoop()
    yield loop
    loop.stop()


@pytest.fixture(scope="session")
def background_services(
    background_loop: BackgroundLoop, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Services]:
    """The three services, shared by the session; tests must not change their state."""
    running = toy_services(tmp_path_factory.mktemp("services"))
    yield background_loop.run(running.__aenter__())
    background_loop.run(running.__aexit__(None, None, None))


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A private PostgreSQL server; skips the test if the distribution's package is missing."""
    folder = programs()
    if folder is None:
        pytest.skip("needs PostgreSQL's programs (Debian's package `postgresql`)")
    server = PostgreSQL(folder)
    yield server
    server.stop()


@pytest.fixture(params=["sqlite", "postgresql"])
def feedback_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty feedback log: a SQLite file, or a PostgreSQL database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'feedback.sqlite'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.new_database()


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A certificate authority for the session."""
    return Authority.create(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """A function that returns a TCP port on which nothing listens."""
    return ports.free_port
