"""TLS certificates in PEM files: validated when they are read, and reloaded when they change."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import structlog

if TYPE_CHECKING:
    from cryptography import x509

from marquee_services.server.identity.reloading import UnusableFile

_log = structlog.get_logger()


class CertificateError(UnusableFile):
    """A certificate, key or authority cannot be used; the message names the file and the cause."""


@dataclass(frozen=True)
class Pems:
    """The contents of the files when they were last read.

    Attributes:
        certificate: The certificate chain, starting with the leaf; None without a certificate.
        key: The private key of the certificate; None without a certificate.
        authorities: The certificates of the trusted authorities; None for the default.
        expires: When the certificate expires; None without a certificate.
    """

    certificate: bytes | None
    key: bytes | None
    authorities: bytes | None
    expires: datetime | None


class Certificates:
    """A certificate with its key, and the authorities that must have signed peers' certificates.

    Attributes:
        purpose: The purpose that logs and metrics name: `server` or `backends`.
        current: The last valid contents of the files.
        version: The number of times that the contents have changed.
    """

    def __init__(self, purpose: str, certificate: str, key: str, authorities: str) -> None:
        """Reads the files.

        Args:
            purpose: The purpose, for logs and metrics.
            certificate: The file of the certificate chain; "" for none.
            key: The file of its private key; "" for none.
            authorities: The file of the authorities; "" for the default.

        Raises:
            CertificateError: A file cannot be read or parsed, a certificate has expired or is not
                valid yet, or the key does not match the certificate.
        """
        self.purpose = purpose
        self._files = tuple(
            Path(name) if name else None for name in (certificate, key, authorities)
        )
        self._lock = threading.Lock()
        self._seen = self._stamp()
        self.current = self._read()
        self.version = 0

    def refresh(self) -> None:
        """Reads the files again if they have changed. Thread-safe.

        If the new contents cannot be used, that is logged and the previous contents stay in use:
        files that belong together are rarely replaced in one step.
        """
        with self._lock:
            stamp = self._stamp()
            if stamp == self._seen:
                return
            self._seen = stamp
            try:
                read = self._read()
            except CertificateError as error:
                _log.error("certificate_refused", purpose=self.purpose, error=str(error))
                return
            if read != self.current:
                self.current = read
                self.version += 1
                _log.info("certificate_loaded", purpose=self.purpose, expires=str(read.expires))

    def server_credentials(self) -> grpc.ServerCredentials:
        """Returns credentials for a server; each new connection uses the current contents.

        If there are authorities, clients must present a certificate.
        """
        served = self.version

        def fetch() -> Any:  # None for no change, which the type stubs do not allow
            nonlocal served
            self.refresh()
            if served == self.version:
                return None
            served = self.version
            return self._configuration()

        credentials: grpc.ServerCredentials = grpc.dynamic_ssl_server_credentials(
            self._configuration(), fetch, self.current.authorities is not None
        )
        return credentials

    def channel_credentials(self) -> grpc.ChannelCredentials:
        """Returns credentials for a channel, with the current contents."""
        now = self.current
        return grpc.ssl_channel_credentials(now.authorities, now.key, now.certificate)

    def _configuration(self) -> grpc.ServerCertificateConfiguration:
        now = self.current
        pair = now.key or b"", now.certificate or b""
        return grpc.ssl_server_certificate_configuration([pair], now.authorities)

    def _stamp(self) -> Sequence[tuple[int, int, int] | None]:
        """Returns a value that changes whenever a file is written or replaced."""
        return [_file_stamp(file) for file in self._files]

    def _read(self) -> Pems:
        # Imported here because the library takes megabytes of memory, and only TLS needs it.
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        certificate, key, authorities = self._files
        expires, chain_pem, key_pem = None, None, None
        if certificate is not None and key is not None:
            chain_pem, key_pem = _read_file(certificate), _read_file(key)
            leaf = _parse(certificate, chain_pem)[0]
            _check_validity(certificate, leaf)
            try:
                private = load_pem_private_key(key_pem, None)
            except (ValueError, TypeError) as error:
                raise CertificateError(f"{key}: not an unencrypted PEM private key") from error
            if private.public_key() != leaf.public_key():
                raise CertificateError(f"{key}: does not match the certificate in {certificate}")
            expires = leaf.not_valid_after_utc
        authorities_pem = None
        if authorities is not None:
            authorities_pem = _read_file(authorities)
            for authority in _parse(authorities, authorities_pem):
                _check_validity(authorities, authority)
        return Pems(chain_pem, key_pem, authorities_pem, expires)


def _file_stamp(file: Path | None) -> tuple[int, int, int] | None:
    try:
        found = os.stat(file) if file is not None else None
    except OSError:
        return None
    return None if found is None else (found.st_mtime_ns, found.st_size, found.st_ino)


def _read_file(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CertificateError(f"{file}: {error.strerror}") from error


def _parse(file: Path, pem: bytes) -> list[x509.Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise CertificateError(f"{file}: not a PEM certificate") from error


def _check_validity(file: Path, certificate: x509.Certificate) -> None:
    now = datetime.now(UTC)
    name = certificate.subject.rfc4514_string()
    if certificate.not_valid_after_utc < now:
        when = certificate.not_valid_after_utc.isoformat()
        raise CertificateError(f"{file}: the certificate {name!r} expired at {when}")
    if certificate.not_valid_before_utc > now:
        when = certificate.not_valid_before_utc.isoformat()
        raise CertificateError(f"{file}: the certificate {name!r} is valid only from {when}")
