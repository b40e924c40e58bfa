"""Certificates and tokens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import marquee
from marquee._channel import is_loopback
from marquee.testing import FakeGateway


@pytest.fixture(scope="module")
def server_pair(authority: Any) -> tuple[Path, Path]:
    """The server's certificate and key, for the name `localhost`."""
    pair: tuple[Path, Path] = authority.issue("localhost")
    return pair


@pytest.fixture(scope="module")
def client_pair(authority: Any) -> tuple[Path, Path]:
    """The client's certificate and key."""
    pair: tuple[Path, Path] = authority.issue("caller")
    return pair


@pytest.fixture(params=[False, True], ids=["tls", "mtls"])
def secure_gateway(
    request: pytest.FixtureRequest, authority: Any, server_pair: tuple[Path, Path]
) -> Iterator[tuple[FakeGateway, bool]]:
    """A gateway with TLS, and whether it asks for the client's certificate."""
    certificate, key = server_pair
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())],
        root_certificates=authority.certificate.read_bytes(),
        require_client_auth=request.param,
    )
    with FakeGateway("localhost:0", credentials=credentials) as gateway:
        yield gateway, request.param


@pytest.mark.parametrize("read", [str, Path, Path.read_bytes], ids=["text", "path", "bytes"])
async def test_tls_and_mutual_tls(
    secure_gateway: tuple[FakeGateway, bool],
    authority: Any,
    client_pair: tuple[Path, Path],
    read: Any,
) -> None:
    """Certificates come by path or as bytes, in both clients."""
    gateway, mutual = secure_gateway
    pair = {"cert": read(client_pair[0]), "key": read(client_pair[1])} if mutual else {}
    tls = marquee.TLS(ca=read(authority.certificate), **pair)
    with marquee.Client(gateway.address, tls=tls, timeout=10) as client:
        client.status()
    async with marquee.AsyncClient(gateway.address, tls=tls, timeout=10) as async_client:
        await async_client.status()
    assert len(gateway.calls) == 2


def test_a_caller_without_its_certificate_is_turned_away(
    secure_gateway: tuple[FakeGateway, bool], authority: Any
) -> None:
    """Mutual TLS is enforced: the same call gets through only where none is asked for."""
    gateway, mutual = secure_gateway
    tls = marquee.TLS(ca=authority.certificate)
    with marquee.Client(gateway.address, tls=tls, timeout=10) as client:
        if mutual:
            with pytest.raises(marquee.Unavailable):
                client.status()
        else:
            client.status()


@pytest.mark.parametrize(
    "tls", [True, marquee.TLS(server_name="other.example")], ids=["strangers", "other-name"]
)
def test_a_server_that_cannot_prove_its_name_is_not_called(
    secure_gateway: tuple[FakeGateway, bool], authority: Any, tls: Any
) -> None:
    """Neither an authority that the system does not know nor another name is trusted."""
    gateway, _ = secure_gateway
    if isinstance(tls, marquee.TLS):
        tls = marquee.TLS(ca=authority.certificate, server_name=tls.server_name)
    with (
        marquee.Client(gateway.address, tls=tls, timeout=10) as client,
        pytest.raises(marquee.Unavailable),
    ):
        client.status()
    assert not gateway.calls


def test_the_name_to_expect_can_be_given(authority: Any, server_pair: tuple[Path, Path]) -> None:
    """A server reached by address is checked against the name that the caller expects."""
    certificate, key = server_pair
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    with FakeGateway(credentials=credentials) as gateway:
        tls = marquee.TLS(ca=authority.certificate, server_name="localhost")
        with marquee.Client(gateway.address, tls=tls, timeout=10) as client:
            client.status()


def test_certificates_are_read_when_the_client_is_made(tmp_path: Path) -> None:
    """A path that is wrong is told at once, not at the first call."""
    with pytest.raises(FileNotFoundError):
        marquee.Client("localhost:1", tls=marquee.TLS(ca=tmp_path / "none.pem"))


def test_a_certificate_needs_its_key() -> None:
    """Half of a pair is a mistake."""
    with pytest.raises(ValueError, match="needs its key"):
        marquee.TLS(cert=b"certificate")
    with pytest.raises(ValueError, match="needs its key"):
        marquee.TLS(key=b"key")


async def test_a_token_goes_with_every_call() -> None:
    """A string as it is, without the line end of its file; a function is asked each time."""
    tokens = iter(["one", "two"])
    with FakeGateway() as gateway:
        with marquee.Client(gateway.address, token="fixed\n") as client:  # noqa: S106 - no secret
            client.status()
            list(client.batch_recommend(["42"]))
        async with marquee.AsyncClient(gateway.address, token=lambda: next(tokens)) as fresh:
            await fresh.status()
            await fresh.status()
    sent = [call.metadata["authorization"] for call in gateway.calls]
    assert sent == ["Bearer fixed", "Bearer fixed", "Bearer one", "Bearer two"]


def test_a_call_without_a_token_has_no_authorization() -> None:
    """No empty header is sent."""
    with FakeGateway() as gateway, marquee.Client(gateway.address, timeout=10) as client:
        client.status()
        assert "authorization" not in gateway.calls[0].metadata


@pytest.mark.parametrize("token", ["se\ncret", "sécret", "se\x00cret"])
def test_a_token_that_no_header_can_carry_is_not_shown(token: str) -> None:
    """The error does not hold the token, which might end up in a log."""
    with (
        FakeGateway() as gateway,
        marquee.Client(gateway.address, token=token) as client,
        pytest.raises(ValueError, match="the token holds characters") as raised,
    ):
        client.status()
    assert "cret" not in str(raised.value)


@pytest.mark.parametrize("client", [marquee.Client, marquee.AsyncClient])
def test_a_token_does_not_travel_readable(client: Any) -> None:
    """To another machine it takes TLS or a word that plaintext is all right."""
    with pytest.raises(ValueError, match="would travel readable"):
        client("gateway.example:50051", token="secret")  # noqa: S106 - no secret
    client("gateway.example:50051", token="secret", tls=True)  # noqa: S106 - no secret
    client("gateway.example:50051", token="secret", allow_insecure_token=True)  # noqa: S106


def test_secrets_are_not_shown() -> None:
    """Neither token nor private key is in a representation."""
    tls = marquee.TLS(cert=b"certificate", key=b"secret")
    client = marquee.Client("localhost:1", token="secret", tls=tls)  # noqa: S106 - no secret
    for shown in (repr(tls), repr(client), repr(client._settings)):
        assert "secret" not in shown
    assert repr(client) == "Client('localhost:1')"


@pytest.mark.parametrize(
    ("target", "loopback"),
    [
        ("localhost:1", True),
        ("127.0.0.1:1", True),
        ("127.8.9.1", True),
        ("[::1]:1", True),
        ("dns:///localhost:1", True),
        ("dns:localhost:1", True),
        ("unix:/run/gateway", True),
        ("ipv4:127.0.0.1:1,127.0.0.1:2", True),
        ("ipv6:[::1]:1", True),
        ("ipv4:127.0.0.1:1,10.0.0.1:2", False),
        ("10.0.0.1:1", False),
        ("localhost.example:1", False),
        ("127.0.0.1.example:1", False),
        ("dns://127.0.0.1/gateway.example:1", False),
        ("[fe80::1]:1", False),
        ("gateway:50051", False),
        ("xds:///gateway", False),
    ],
)
def test_what_counts_as_this_machine(target: str, loopback: bool) -> None:
    """Only targets that cannot leave the machine."""
    assert is_loopback(target) is loopback
