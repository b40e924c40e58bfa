"""Access control: tokens, scopes, rate limits, and what a gateway discloses to whom."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

import marquee
from gateway.calls import TIMEOUT_S
from marquee_services.errors import Unauthenticated
from marquee_services.gateway.gateway import Gateway
from marquee_services.server.identity.access import Scope
from marquee_services.server.identity.jwt_tokens import JSONWebTokens
from marquee_services.server.identity.rate_limits import RateLimits
from marquee_services.server.identity.reloading import UnusableFile
from marquee_services.server.identity.static_tokens import StaticTokens
from toy.release import publish_toy
from toy.services import Services

ISSUER, AUDIENCE = "https://issuer.test", "marquee"


def client_of(gateway: Gateway, token: Any = None) -> marquee.AsyncClient:
    """Return a client that sends a token."""
    return marquee.AsyncClient(
        f"127.0.0.1:{gateway.bound.port}", timeout=TIMEOUT_S, token=token, health_check=False
    )


def signed(key: Any, algorithm: str = "EdDSA", key_id: str = "first", **changes: Any) -> str:
    """Return a token that is valid unless changed; a claim of None is omitted."""
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "exp": time.time() + 3600,
        "scope": "recommend openid",
        **changes,
    }
    present = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(present, key, algorithm, headers={"kid": key_id})


def key_set(**keys: Any) -> str:
    """Return a JSON Web Key Set of public keys by id."""
    entries = []
    for key_id, key in keys.items():
        kind: Any = ECAlgorithm if isinstance(key, ec.EllipticCurvePrivateKey) else OKPAlgorithm
        entries.append({**kind.to_jwk(key.public_key(), as_dict=True), "kid": key_id})
    return json.dumps({"keys": entries})


@pytest.fixture
def key() -> ed25519.Ed25519PrivateKey:
    """The issuer's private key."""
    return ed25519.Ed25519PrivateKey.generate()


async def test_static_tokens_grant_their_scopes(services: Any, tmp_path: Path) -> None:
    """No token, a wrong token and a token without the scope each have a distinct error."""
    file = tmp_path / "tokens"
    file.write_text(
        "# name scopes token\nshop recommend,feedback s3cret\nops admin,recommend boss\n"
    )
    gateway = await services.start_gateway(
        tokens_file=str(file), feedback=f"sqlite:///{tmp_path / 'log'}"
    )
    await services.until_full(gateway)
    async with client_of(gateway, "s3cret") as client:
        assert (await client.recommend("u7")).items
        await client.feedback.rate("u7", {"i1": 4.0})
        with pytest.raises(marquee.PermissionDenied, match="admin") as refused:
            await client.feedback.events("u7")
        assert refused.value.reason == "ADMIN_REQUIRED"
    async with client_of(gateway, "boss") as client:
        assert list(await client.feedback.events("u7"))
        with pytest.raises(marquee.PermissionDenied) as denied:
            await client.feedback.rate("u7", {"i1": 4.0})
        assert denied.value.metadata == {"scope": "feedback"}
    for token, why in (("wrong", "unknown"), (None, "no bearer token")):
        async with client_of(gateway, token) as client:
            with pytest.raises(marquee.Unauthenticated, match=why):
                await client.recommend("u7")
            with pytest.raises(marquee.Unauthenticated):
                await anext(client.batch_recommend(["u7"]))
    await gateway.stop(0.5)


async def test_token_files_are_reloaded_by_client_and_gateway(
    services: Any, tmp_path: Path
) -> None:
    """A token is replaced on both sides without a restart."""
    file, own = tmp_path / "tokens", tmp_path / "own"
    file.write_text("shop recommend old")
    own.write_text("old\n")
    gateway = await services.start_gateway(tokens_file=str(file))
    await services.until_full(gateway)
    async with client_of(gateway, marquee.TokenFile(own)) as client:
        await client.recommend("u7")
        file.write_text("shop recommend newer")
        gateway.bound.reloader.reload()
        with pytest.raises(marquee.Unauthenticated):
            await client.recommend("u7")
        own.write_text("newer\n")
        await client.recommend("u7")
        file.write_text("half a li")
        gateway.bound.reloader.reload()
        await client.recommend("u7")
    await gateway.stop(0.5)


async def test_json_web_tokens_are_verified_and_keys_rotate(
    services: Any, key: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that the issuer adds later is fetched when the first token signed with it arrives."""
    published = {"keys": key_set(first=key)}

    class Issuer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(published["keys"].encode())

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's
            pass

    monkeypatch.setattr("marquee_services.server.identity.jwt_tokens._MIN_FETCH_INTERVAL_S", 0.0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Issuer)
    thread = Thread(target=server.serve_forever)
    thread.start()
    gateway = await services.start_gateway(
        jwt_keys=f"http://127.0.0.1:{server.server_port}/keys",
        jwt_issuer=ISSUER,
        jwt_audience=AUDIENCE,
    )
    await services.until_full(gateway)
    async with client_of(gateway, signed(key)) as client:
        await client.recommend("u7")
    second = ec.generate_private_key(ec.SECP256R1())
    token = signed(second, "ES256", "second")
    async with client_of(gateway, token) as client:
        with pytest.raises(marquee.Unauthenticated, match="not signed with a known key"):
            await client.recommend("u7")
        published["keys"] = key_set(first=key, second=second)
        await client.recommend("u7")
    await gateway.stop(0.5)
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"exp": 1_000_000_000}, "expired"),
        ({"exp": None}, "exp"),
        ({"sub": None}, "sub"),
        ({"aud": "other"}, "[Aa]udience"),
        ({"iss": "https://evil.test"}, "[Ii]ssuer"),
        ({"nbf": 4_000_000_000}, "not yet valid"),
        ({"key_id": "unknown"}, "known key"),
    ],
)
async def test_an_invalid_token_is_refused(
    key: Any, tmp_path: Path, changes: dict[str, Any], why: str
) -> None:
    """Issuer, audience, times, subject and key must all be valid."""
    file = tmp_path / "keys.json"
    file.write_text(key_set(first=key))
    tokens = JSONWebTokens(str(file), ISSUER, AUDIENCE)
    assert (await tokens.verify(signed(key))).scopes == {Scope.RECOMMEND}
    with pytest.raises(Unauthenticated, match=why):
        await tokens.verify(signed(key, **changes))


async def test_tokens_with_forged_signatures_are_refused(key: Any, tmp_path: Path) -> None:
    """A valid token is signed neither with another key, nor with none, nor with the public key."""
    file = tmp_path / "keys.pem"
    pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    file.write_bytes(pem)
    tokens = JSONWebTokens(str(file), ISSUER, AUDIENCE)
    await tokens.verify(signed(key, key_id=""))
    unsigned = jwt.encode({"sub": "alice"}, "", "none")
    keyed = jwt.encode({"sub": "alice"}, "a" * 32, "HS256")
    other = signed(ed25519.Ed25519PrivateKey.generate(), key_id="")
    for forged in (unsigned, keyed, other, "no token", "a.b.c", ""):
        with pytest.raises(Unauthenticated):
            await tokens.verify(forged)


@given(st.text(), st.text(), st.integers(0, 3000))
async def test_arbitrary_text_is_not_accepted_as_a_token(
    header: str, claims: str, depth: int
) -> None:
    """Any text ends with UNAUTHENTICATED and never with INTERNAL."""
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        file.write(key_set(first=ed25519.Ed25519PrivateKey.generate()))
        file.flush()
        tokens = JSONWebTokens(file.name, ISSUER, AUDIENCE)
    nested = base64.urlsafe_b64encode(b"[" * depth).decode().rstrip("=")
    for text in (header, f"{header}.{claims}.x", f"{nested}.{nested}.x"):
        with pytest.raises(Unauthenticated):
            await tokens.verify(text)


async def test_keys_behind_a_redirect_are_not_fetched(tmp_path: Path) -> None:
    """The redirect could lead to a host without TLS."""

    class Redirect(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_response(302)
            self.send_header("location", f"http://127.0.0.1:{server.server_port}/keys")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's
            pass

    paths: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), Redirect)
    thread = Thread(target=server.serve_forever)
    thread.start()
    tokens = JSONWebTokens(f"http://127.0.0.1:{server.server_port}/first", ISSUER, AUDIENCE)
    key = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(Unauthenticated, match="known key"):
        await tokens.verify(signed(key))
    assert paths == ["/first"]
    server.shutdown()
    thread.join()
    server.server_close()


async def test_a_cached_token_is_refused_after_it_expires(
    key: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The expiry is checked at every call, and tokens of withdrawn keys are refused."""
    file = tmp_path / "keys.json"
    file.write_text(key_set(first=key))
    tokens = JSONWebTokens(str(file), ISSUER, AUDIENCE)
    token = signed(key, exp=time.time() + 60)
    await tokens.verify(token)
    now = time.time()
    monkeypatch.setattr("marquee_services.server.identity.jwt_tokens.time.time", lambda: now + 120)
    with pytest.raises(Unauthenticated, match="expired"):
        await tokens.verify(token)
    monkeypatch.undo()
    file.write_text(key_set(first=ed25519.Ed25519PrivateKey.generate()))
    tokens.refresh()
    with pytest.raises(Unauthenticated, match="known key"):
        await tokens.verify(token)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("shop recommend", "line 1"),
        ("\nshop everything s3cret", "line 2.*recommend, feedback, admin"),
        ("shop recommend sha256:12", "line 1"),
    ],
)
def test_a_malformed_token_file_is_refused(tmp_path: Path, text: str, why: str) -> None:
    """The error names the line but does not contain the token."""
    file = tmp_path / "tokens"
    file.write_text(text)
    with pytest.raises(UnusableFile, match=why) as error:
        StaticTokens(str(file))
    assert "s3cret" not in str(error.value)


async def test_a_token_may_be_stored_as_its_digest(tmp_path: Path) -> None:
    """The file then does not disclose the token: `printf s3cret | sha256sum`."""
    file = tmp_path / "tokens"
    digest = "1ec1c26b50d5d3c58d9583181af8076655fe00756bf7285940ba3670f99fcba0"
    file.write_text(f"shop recommend sha256:{digest}")
    assert (await StaticTokens(str(file)).verify("s3cret")).name == "token:shop"


@pytest.mark.parametrize("url", ["http://issuer.test/keys", "ftp://issuer.test/keys"])
def test_keys_are_not_fetched_without_tls(url: str) -> None:
    """An attacker in the network could substitute keys."""
    with pytest.raises(UnusableFile, match="https"):
        JSONWebTokens(url, ISSUER, AUDIENCE)


async def test_each_identity_has_its_own_rate_limit(services: Any, tmp_path: Path) -> None:
    """An identity that exceeds its limit gets a retry delay, and others are not affected."""
    file = tmp_path / "tokens"
    file.write_text("greedy recommend one\nmodest recommend two")
    gateway = await services.start_gateway(tokens_file=str(file), rate_limit=0.001, rate_burst=2)
    await services.until_full(gateway)
    async with client_of(gateway, "one") as greedy, client_of(gateway, "two") as modest:
        for _ in range(2):
            await greedy.recommend("u7")
        with pytest.raises(marquee.Overloaded) as refused:
            await greedy.recommend("u7")
        assert refused.value.reason == "RATE_LIMITED"
        assert int(refused.value.metadata["retry_after_ms"]) > 0
        assert refused.value.retry_after is not None
        assert refused.value.retry_after > 0
        await modest.recommend("u7")
    await gateway.stop(0.5)


def test_buckets_refill_and_their_number_is_bounded() -> None:
    """The announced delay suffices, and the buckets of identities beyond the bound are dropped."""
    now = 0.0
    limits = RateLimits(2.0, 1, max_identities=2, clock=lambda: now)
    assert limits.wait("a") == 0
    assert limits.wait("a") == pytest.approx(0.5)
    now = 0.5
    assert limits.wait("a") == 0
    for identity in ("b", "c"):
        assert limits.wait(identity) == 0
    assert limits.wait("a") == 0, "its bucket was dropped, so a new one is full"


async def test_addresses_are_shown_only_to_administrators(services: Any, tmp_path: Path) -> None:
    """Other callers see the state of the backends, but not their addresses."""
    file = tmp_path / "tokens"
    file.write_text("shop recommend one\nops recommend,admin two")
    gateway = await services.start_gateway(tokens_file=str(file), cf_target="127.0.0.1:1")
    await services.until(lambda: gateway.backends[0].last_error.text)
    async with client_of(gateway, "two") as client:
        shown = {backend.backend: backend for backend in (await client.status()).backends}
        assert shown["cf"].target == "127.0.0.1:1"
        assert "127.0.0.1:1" in shown["cf"].last_error
    async with client_of(gateway, "one") as client:
        status = await client.status()
        assert status.backends
        assert "127.0.0.1" not in repr(status)
    await gateway.stop(0.5)


async def test_errors_of_the_store_are_shown_only_to_administrators(
    services: Any, tmp_path: Path
) -> None:
    """Errors contain paths and hosts, so other callers only see that there is one."""
    file = tmp_path / "tokens"
    file.write_text("shop recommend one\nops recommend,admin two")
    gateway = await services.start_gateway(tokens_file=str(file))
    await services.until_full(gateway)
    pointer = Path(services.store.url) / "production"
    pointer.rename(tmp_path / "aside")
    pointer.mkdir()
    await services.until(lambda: gateway.follower.store_error)
    async with client_of(gateway, "two") as client:
        assert str(pointer) in (await client.status()).store_error
    async with client_of(gateway, "one") as client:
        status = await client.status()
        assert status.store_error
        assert str(services.store.url) not in repr(status)
    await gateway.stop(0.5)


@pytest.mark.parametrize(("reflection", "answers"), [("auto", False), ("on", True)])
async def test_reflection_is_disabled_if_callers_are_authenticated(
    services: Any, tmp_path: Path, reflection: str, answers: bool
) -> None:
    """Reflection cannot check tokens, so it would disclose the API to anyone."""
    file = tmp_path / "tokens"
    file.write_text("shop recommend one")
    gateway = await services.start_gateway(tokens_file=str(file), reflection=reflection)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        call: Any = channel.stream_stream(
            "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
        )(timeout=TIMEOUT_S)
        await call.done_writing()
        code = grpc.StatusCode.OK if answers else grpc.StatusCode.UNIMPLEMENTED
        assert await call.code() is code
    await gateway.stop(0.5)


async def test_metrics_listen_on_the_address_of_the_server(
    services: Any, free_port: Callable[[], int]
) -> None:
    """A server on one loopback address does not expose its metrics on others."""
    import urllib.request

    port = free_port()
    gateway = await services.start_gateway(listen="127.0.0.2:0", metrics_port=port)
    with urllib.request.urlopen(f"http://127.0.0.2:{port}/metrics") as page:
        assert page.status == 200
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics")
    await gateway.stop(0.5)


async def test_pruning_sends_its_token_to_gateways(services: Services, tmp_path: Path) -> None:
    """If a gateway refuses the token, the error names the gateway and nothing is deleted."""
    file = tmp_path / "tokens"
    file.write_text("pruner recommend s3cret\n")
    gateway = await services.start_gateway(tokens_file=str(file))
    await services.until_full(gateway)
    address = f"127.0.0.1:{gateway.bound.port}"
    made = tmp_path / "made"
    for number in range(2):
        await asyncio.to_thread(publish_toy, services.store, made / str(number), number + 1)
    command = [sys.executable, "-m", "marquee.cli", "--timeout", "60"]
    pruning = ["releases", "--store", services.store.url, "prune", "--keep", "1"]
    pruning += ["--gateway", address, "--recent-hours", "0"]
    count = len(services.store.ids())

    async def run(*options: str) -> subprocess.CompletedProcess[str]:
        whole = [*command, *options, *pruning]
        return await asyncio.to_thread(
            subprocess.run, whole, capture_output=True, text=True, check=False
        )

    refused = await run()
    assert refused.returncode == 1
    assert f"the gateway at {address} does not respond: UNAUTHENTICATED" in refused.stderr
    assert len(services.store.ids()) == count
    pruned = await run("--token", "s3cret")
    assert pruned.returncode == 0, pruned.stderr
    assert len(services.store.ids()) == count - 1
    await gateway.stop(0.5)
