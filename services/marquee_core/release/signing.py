"""Signs manifests and the production pointer with Ed25519, and verifies the signatures.

A manifest lists the SHA-256 digest of every file of its release, so signing the manifest
authenticates the whole release. The signature covers the bytes of `manifest.json` and is stored
next to it in `manifest.sig`, with one line per key: `<key id> <signature in base64>`. The
production pointer contains such a line itself; see `pointer.py`.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from marquee_core.errors import ArtifactError

if TYPE_CHECKING:  # Imported where keys are used: servers without keys save 6 MB of memory.
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

SIGNATURE_NAME = "manifest.sig"
_MAX_SIGNATURES = 16
_PEM_BEGIN = "-----BEGIN PUBLIC KEY-----"
_PEM_END = "-----END PUBLIC KEY-----"


class KeyFileError(ValueError):
    """A key file cannot be read or contains no usable key."""


@dataclass(frozen=True)
class TrustedKeys:
    """The keys whose signatures are accepted.

    Attributes:
        keys: The public keys by their ids.
    """

    keys: dict[str, Ed25519PublicKey]

    @classmethod
    def load(cls, path: Path) -> TrustedKeys:
        """Reads a PEM file with one or more Ed25519 public keys.

        Raises:
            KeyFileError: The file cannot be read, or has no key, or a key of another type.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        text = _read(path).decode(errors="replace")
        keys = {}
        for part in text.split(_PEM_BEGIN)[1:]:
            block = _PEM_BEGIN + part.partition(_PEM_END)[0] + _PEM_END + "\n"
            try:
                key = serialization.load_pem_public_key(block.encode())
            except (ValueError, UnsupportedAlgorithm) as error:
                raise KeyFileError(f"{path}: not a public key in PEM: {error}") from error
            if not isinstance(key, Ed25519PublicKey):
                raise KeyFileError(f"{path}: a key is not an Ed25519 key")
            keys[key_id(key)] = key
        if not keys:
            raise KeyFileError(f"{path}: the file contains no public key")
        return cls(keys)

    def check(self, content: bytes, signatures: bytes, what: str) -> None:
        """Checks that one of the keys has signed the content.

        Args:
            content: The signed bytes.
            signatures: One line per signature; empty if there is none.
            what: A name for the content, for error messages, such as
                `release 20260101T000000Z-0`.

        Raises:
            ArtifactError: None of the keys has signed the content.
        """
        from cryptography.exceptions import InvalidSignature

        if not signatures:
            raise ArtifactError(f"{what} is not signed, but trusted keys are configured")
        for line in signatures.decode(errors="replace").splitlines()[:_MAX_SIGNATURES]:
            name, _, encoded = line.partition(" ")
            key = self.keys.get(name)
            if key is None:
                continue
            try:
                key.verify(base64.b64decode(encoded, validate=True), content)
            except (InvalidSignature, binascii.Error, ValueError) as error:
                raise ArtifactError(
                    f"the signature of {what} by key {name} is invalid: the content or the "
                    "signature was changed"
                ) from error
            return
        raise ArtifactError(f"{what} is not signed by any of the trusted keys")


@dataclass(frozen=True)
class Signer:
    """Signs with a private key."""

    _key: Ed25519PrivateKey

    @classmethod
    def load(cls, path: Path) -> Signer:
        """Reads a PEM file with an unencrypted Ed25519 private key.

        Raises:
            KeyFileError: The file cannot be read, or contains no such key.
        """
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        content = _read(path)
        try:
            key = serialization.load_pem_private_key(content, None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise KeyFileError(f"{path}: not a private key in PEM: {error}") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise KeyFileError(f"{path}: not an Ed25519 key")
        return cls(key)

    @property
    def id(self) -> str:
        """The id of the key."""
        return key_id(self._key.public_key())

    def sign(self, content: bytes) -> bytes:
        """Signs content, and returns the line `<key id> <signature>`, with a line break."""
        signature = base64.b64encode(self._key.sign(content)).decode()
        return f"{self.id} {signature}\n".encode()


def key_id(key: Ed25519PublicKey) -> str:
    """Returns the first 16 hexadecimal digits of the SHA-256 of a public key."""
    from cryptography.hazmat.primitives import serialization

    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:16]


def generate_key(path: Path) -> tuple[Path, str]:
    """Generates a key pair, and writes both keys to files.

    Args:
        path: The file of the private key, which only its owner can read. The file of the public
            key has the additional suffix `.pub`.

    Returns:
        The file of the public key, and the key's id.

    Raises:
        OSError: One of the files already exists or cannot be written.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    public_path = path.with_name(f"{path.name}.pub")
    for target, content, mode in ((path, private, 0o600), (public_path, public, 0o644)):
        handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
    return public_path, key_id(key.public_key())


def join_signatures(signatures: Sequence[bytes]) -> bytes:
    """Merges signatures into the content of `manifest.sig`; the last one per key is kept."""
    lines = {line.partition(b" ")[0]: line for part in signatures for line in part.splitlines()}
    return b"".join(line + b"\n" for line in lines.values())


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
