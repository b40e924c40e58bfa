"""Parsers of bearer tokens, and of files with tokens and keys."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from fuzz.mutate import mutate_bytes, mutate_json
from fuzz.targets import Target
from marquee_services.errors import Unauthenticated
from marquee_services.server.identity.jwt_tokens import JSONWebTokens
from marquee_services.server.identity.reloading import UnusableFile
from marquee_services.server.identity.static_tokens import StaticTokens

_ISSUER, _AUDIENCE = "https://issuer.test", "marquee"
_FAR_FUTURE = 4_000_000_000
_FILE = b"""# name scopes token
shop recommend,feedback 5f0c9e1d2b3a4c5d6e7f
ops admin sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
"""


def _encoded(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")


def token_targets(folder: Path) -> list[Target]:
    """Returns the targets."""
    private = Ed25519PrivateKey.from_private_bytes(b"marquee " * 4)
    raw = private.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    key = {"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "kid": "k1", "x": _encoded(raw).decode()}
    keys = folder / "keys.json"
    keys.write_text(json.dumps({"keys": [key]}))
    pem = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    verifier = JSONWebTokens(str(keys), _ISSUER, _AUDIENCE)
    header = json.dumps({"alg": "EdDSA", "kid": "k1"}).encode()
    claims = json.dumps(
        {
            "iss": _ISSUER,
            "aud": _AUDIENCE,
            "sub": "shop",
            "exp": _FAR_FUTURE,
            "scope": "recommend feedback",
        }
    ).encode()

    def signed(header: bytes, claims: bytes) -> bytes:
        content = _encoded(header) + b"." + _encoded(claims)
        return content + b"." + _encoded(private.sign(content))

    def verify(data: bytes) -> None:
        asyncio.run(verifier.verify(data.decode("utf-8", "replace")))

    def mutate_claims(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
        """Returns a token with a valid signature over a damaged header or damaged claims."""
        if rng.randrange(3):
            return signed(header, mutate_json(rng, [claims]))
        return signed(mutate_json(rng, [header]), claims)

    given = folder / "given"

    def read_keys(data: bytes) -> None:
        given.write_bytes(data)
        JSONWebTokens(str(given), _ISSUER, _AUDIENCE)

    def read_tokens(data: bytes) -> None:
        given.write_bytes(data)
        StaticTokens(str(given))

    valid = signed(header, claims)
    sets = [keys.read_bytes(), json.dumps({"keys": [key, {**key, "use": "enc"}]}).encode()]
    refused = (Unauthenticated,)
    return [
        Target("bearer tokens", 20, [valid], verify, refused),
        Target("signed claims", 20, [valid], verify, refused, mutate_claims),
        Target("key sets", 15, sets, read_keys, (UnusableFile,), mutate_json),
        Target("public keys", 10, [pem, 2 * pem], read_keys, (UnusableFile,)),
        Target("token files", 20, [_FILE], read_tokens, (UnusableFile,), mutate_bytes),
    ]
