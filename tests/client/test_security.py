"""TLS certificates and bearer tokens."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

import marquee
from marquee._channel import is_loopback
from marquee.testing import FakeGateway
from marquee.v1 import recommender_service_pb2 as pb

# A generous deadline in seconds, so that no result depends on the speed of the machine.
DEADLINE_S = 60.0


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
    """A fake gateway with TLS, and whether it requires a client certificate."""
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
    """Both clients accept certificates as paths and as bytes."""
    gateway, mutual = secure_gateway
    pair = {"cert": read(client_pair[0]), "key": read(client_pair[1])} if mutual else {}
    tls = marquee.TLS(ca=read(authority.certificate), **pair)
    with marquee.Client(gateway.address, tls=tls, timeout=DEADLINE_S) as client:
        client.status()
    async with marquee.AsyncClient(gateway.address, tls=tls, timeout=DEADLINE_S) as async_client:
        await async_client.status()
    assert len(gateway.calls) == 2


@pytest.mark.parametrize("kind", [marquee.Client, marquee.AsyncClient])
async def test_renewed_certificates_are_used_without_a_new_client(
    kind: Any, authority: Any, server_pair: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Later calls use the new certificates, and a batch in progress keeps its connection."""
    monkeypatch.setattr("marquee._certificates._CHECK_INTERVAL_S", 0.0)
    cert, key = authority.issue("renewed-caller")
    credentials = grpc.ssl_server_credentials(
        [(server_pair[1].read_bytes(), server_pair[0].read_bytes())],
        root_certificates=authority.certificate.read_bytes(),
        require_client_auth=True,
    )
    with FakeGateway("localhost:0", credentials=credentials) as gateway:
        go_on = threading.Event()

        def answers(_request: object) -> Iterator[pb.BatchRecommendResponse]:
            answer = pb.BatchRecommendResponse.SubjectAnswer(subject_index=0)
            yield pb.BatchRecommendResponse(answers=[answer])
            go_on.wait(DEADLINE_S)
            yield pb.BatchRecommendResponse(answers=[answer])

        gateway.on("BatchRecommend", answers)
        tls = marquee.TLS(ca=authority.certificate, cert=cert, key=key)
        client = kind(gateway.address, tls=tls, timeout=DEADLINE_S)
        batch = client.batch_recommend(["42"])
        _ = await anext(batch) if kind is marquee.AsyncClient else next(batch)
        (old,) = client._connections.values()
        key.write_text("half a key")
        await _status(client)
        assert list(client._connections.values()) == [old], (
            "an unusable certificate must not replace the one in use"
        )
        authority.issue("renewed-caller")
        await _status(client)
        (new,) = client._connections.values()
        assert new is not old
        del old
        go_on.set()
        rest = [answer async for answer in batch] if kind is marquee.AsyncClient else list(batch)
        assert len(rest) == 1
        closed = client.close()
        if closed is not None:
            await closed


async def _status(client: Any) -> None:
    answer = client.status()
    if isinstance(client, marquee.AsyncClient):
        await answer


def test_mutual_tls_requires_a_client_certificate(
    secure_gateway: tuple[FakeGateway, bool], authority: Any
) -> None:
    """Without a client certificate, a call succeeds only if the server requires none."""
    gateway, mutual = secure_gateway
    tls = marquee.TLS(ca=authority.certificate)
    with marquee.Client(gateway.address, tls=tls, timeout=DEADLINE_S) as client:
        if mutual:
            with pytest.raises(marquee.Unavailable):
                client.status()
        else:
            client.status()


@pytest.mark.parametrize(
    "tls", [True, marquee.TLS(server_name="other.example")], ids=["unknown-ca", "other-name"]
)
def test_a_server_that_cannot_prove_its_name_is_not_called(
    secure_gateway: tuple[FakeGateway, bool], authority: Any, tls: Any
) -> None:
    """The client rejects an unknown certificate authority and an unexpected server name."""
    gateway, _ = secure_gateway
    if isinstance(tls, marquee.TLS):
        tls = marquee.TLS(ca=authority.certificate, server_name=tls.server_name)
    with (
        marquee.Client(gateway.address, tls=tls, timeout=DEADLINE_S) as client,
        pytest.raises(marquee.Unavailable),
    ):
        client.status()
    assert not gateway.calls


def test_the_expected_server_name_can_be_given(
    authority: Any, server_pair: tuple[Path, Path]
) -> None:
    """A server reached by its IP address is verified against `server_name`."""
    certificate, key = server_pair
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), certificate.read_bytes())])
    with FakeGateway(credentials=credentials) as gateway:
        tls = marquee.TLS(ca=authority.certificate, server_name="localhost")
        with marquee.Client(gateway.address, tls=tls, timeout=DEADLINE_S) as client:
            client.status()


def test_certificates_are_read_when_the_client_is_made(tmp_path: Path) -> None:
    """A wrong path raises an error immediately rather than on the first call."""
    with pytest.raises(FileNotFoundError):
        marquee.Client("localhost:1", tls=marquee.TLS(ca=tmp_path / "none.pem"))


def test_a_certificate_needs_its_key() -> None:
    """A certificate without a key, or a key without a certificate, is an error."""
    with pytest.raises(ValueError, match="must be given together"):
        marquee.TLS(cert=b"certificate")
    with pytest.raises(ValueError, match="must be given together"):
        marquee.TLS(key=b"key")


async def test_a_token_is_sent_with_every_call() -> None:
    """A string is sent without surrounding white space, and a function is called for each call."""
    tokens = iter(["one", "two"])
    with FakeGateway() as gateway:
        with marquee.Client(
            gateway.address,
            token="fixed\n",  # noqa: S106 - no secret
            timeout=DEADLINE_S,
        ) as client:
            client.status()
            list(client.batch_recommend(["42"]))
        async with marquee.AsyncClient(
            gateway.address, token=lambda: next(tokens), timeout=DEADLINE_S
        ) as async_client:
            await async_client.status()
            await async_client.status()
    sent = [call.metadata["authorization"] for call in gateway.calls]
    assert sent == ["Bearer fixed", "Bearer fixed", "Bearer one", "Bearer two"]


def test_a_call_without_a_token_has_no_authorization() -> None:
    """Without a token there is no `authorization` header."""
    with FakeGateway() as gateway, marquee.Client(gateway.address, timeout=DEADLINE_S) as client:
        client.status()
        assert "authorization" not in gateway.calls[0].metadata


@pytest.mark.parametrize("token", ["se\ncret", "sécret", "se\x00cret"])
def test_the_error_for_an_invalid_token_does_not_contain_it(token: str) -> None:
    """A token with invalid characters is not repeated in the error, which may be logged."""
    with (
        FakeGateway() as gateway,
        marquee.Client(gateway.address, token=token) as client,
        pytest.raises(ValueError, match="the token has characters") as raised,
    ):
        client.status()
    assert "cret" not in str(raised.value)


@pytest.mark.parametrize("client", [marquee.Client, marquee.AsyncClient])
def test_a_token_is_not_sent_in_plaintext(client: Any) -> None:
    """Sending a token to another machine requires TLS or `allow_insecure_token`."""
    with pytest.raises(ValueError, match="in plaintext"):
        client("gateway.example:50051", token="secret")  # noqa: S106 - no secret
    client("gateway.example:50051", token="secret", tls=True)  # noqa: S106 - no secret
    client("gateway.example:50051", token="secret", allow_insecure_token=True)  # noqa: S106


def test_representations_hide_secrets() -> None:
    """No representation contains the token or the private key."""
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
def test_loopback_targets_are_recognised(target: str, loopback: bool) -> None:
    """A target is local only if each of its addresses is a loopback address or a Unix socket."""
    assert is_loopback(target) is loopback


CALLS: list[tuple[str, tuple[Any, ...]]] = [
    ("recommend", ("42",)),
    ("recommend_pages", ("42",)),
    ("batch_recommend", (["42"],)),
    ("predict_ratings", ("42", ["50"])),
    ("similar_items", ("50",)),
    ("search_items", ("star",)),
    ("search_pages", ("star",)),
    ("get_item", ("50",)),
    ("status", ()),
]


@pytest.mark.parametrize(("method", "arguments"), CALLS, ids=[name for name, _ in CALLS])
async def test_metadata_is_sent_with_its_call_and_the_token(
    method: str, arguments: tuple[Any, ...]
) -> None:
    """Both clients send the metadata of a call along with the token, and with no other call."""
    metadata = {"x-request-id": "7", "trace-bin": b"\x00\xff"}
    with FakeGateway() as gateway:
        with marquee.Client(gateway.address, timeout=DEADLINE_S, token="t") as client:  # noqa: S106
            result = getattr(client, method)(*arguments, metadata=metadata)
            if method.endswith("_pages") or method.startswith("batch_"):
                list(result)
            client.status()
        async with marquee.AsyncClient(
            gateway.address,
            timeout=DEADLINE_S,
            token="t",  # noqa: S106
        ) as other:
            result = getattr(other, method)(*arguments, metadata=list(metadata.items()))
            if method.endswith("_pages") or method.startswith("batch_"):
                _ = [answer async for answer in result]
            else:
                await result
        sent = [call.metadata for call in gateway.calls]
    assert [one.get("x-request-id") for one in sent] == ["7", None, "7"]
    assert [one.get("trace-bin") for one in sent] == [str(b"\x00\xff"), None, str(b"\x00\xff")]
    assert {one["authorization"] for one in sent} == {"Bearer t"}


def test_an_authorization_in_metadata_replaces_the_token() -> None:
    """The call has a single authorization header, the one in its metadata."""
    with (
        FakeGateway() as gateway,
        marquee.Client(gateway.address, timeout=DEADLINE_S, token="t") as client,  # noqa: S106
    ):
        client.status(metadata={"authorization": "Bearer mine"})
        assert gateway.calls[0].metadata["authorization"] == "Bearer mine"


def test_an_authorization_in_metadata_is_not_sent_in_plaintext() -> None:
    """Authorization metadata is as secret as the token, so it needs TLS."""
    with (
        marquee.Client("gateway.example:1") as client,
        pytest.raises(ValueError, match=r"'authorization' would be sent to gateway\.example:1"),
    ):
        client.status(metadata={"authorization": "Bearer mine"})


@pytest.mark.parametrize(
    ("metadata", "error"),
    [
        ({"X-Request": "1"}, "the key 'X-Request' must consist of lower-case"),
        ({"a b": "1"}, "the key 'a b' must consist of"),
        ({"": "1"}, "the key '' must consist of"),
        ({"grpc-timeout": "1"}, "not begin with 'grpc-'"),
        ({1: "1"}, "keys must be strings, not int"),
        ({"x": 1}, "the value of 'x' must be a string, not int"),
        ({"x": b"secret"}, "the value of 'x' must be a string, not bytes"),
        ({"x-bin": "secret"}, "the value of 'x-bin' must be bytes, not str"),
        ({"x": "secret\n"}, "the value of 'x' must be printable ASCII"),
        ({"x": "sécret"}, "the value of 'x' must be printable ASCII"),
    ],
)
def test_invalid_metadata_is_refused_without_showing_values(metadata: Any, error: str) -> None:
    """The error names the key only, since the value may be secret."""
    with (
        marquee.Client("localhost:1") as client,
        pytest.raises((TypeError, ValueError), match=error) as raised,
    ):
        client.status(metadata=metadata)
    assert "cret" not in str(raised.value)


@pytest.mark.parametrize(
    "target",
    [
        "localhost",
        "gateway.example",
        "dns:///gateway.example",
        "dns:gateway",
        "ipv4:10.0.0.1",
        "::1",
        "[::1]",
        "ipv6:[::1]",
        "localhost:",
        "localhost:0",
        "localhost:99999",
        ":50051",
        "ipv4:10.0.0.1:50051,10.0.0.2",
    ],
)
def test_a_target_needs_a_port(target: str) -> None:
    """gRPC would connect to port 443, or fail with an error about an address nobody wrote."""
    for client in (marquee.Client, marquee.AsyncClient):
        with pytest.raises(ValueError, match=f"the target {re.escape(repr(target))} has no"):
            client(target)


@pytest.mark.parametrize(
    "target",
    [
        "localhost:50051",
        "[::1]:50051",
        "dns:///gateway.example:50051",
        "dns:gateway:1",
        "dns://8.8.8.8/gateway.example:50051",
        "unix:/run/marquee",
        "unix:///run/marquee",
        "unix-abstract:marquee",
        "xds:///marquee",
        "ipv6:[::1]:1,[::2]:2",
        "gateway:https",
        "ipv4:10.0.0.1:50051,10.0.0.2:50051",
    ],
)
def test_valid_targets_are_accepted(target: str) -> None:
    """Every form of gRPC name that has a port, or needs none, is accepted."""
    marquee.Client(target).close()


def test_a_target_must_be_a_string() -> None:
    """A bare port number is not a target."""
    with pytest.raises(TypeError, match="the target must be a string, not int"):
        marquee.Client(50051)  # type: ignore[arg-type]
