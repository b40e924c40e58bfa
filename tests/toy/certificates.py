"""TLS certificates for the tests."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Authority:
    """A certificate authority that only the tests trust.

    Attributes:
        folder: The folder that certificates and keys are written to.
        certificate: The PEM file of the authority's own certificate.
    """

    folder: Path
    certificate: Path
    _own: x509.Certificate
    _key: ec.EllipticCurvePrivateKey

    @classmethod
    def create(cls, folder: Path, name: str = "Tests") -> Authority:
        """Create an authority with a name, and write its certificate to a folder."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        builder = _builder(subject, key.public_key(), subject, -_DAY, 30 * _DAY)
        builder = builder.add_extension(
            x509.BasicConstraints(ca=True, path_length=0), critical=True
        )
        own = builder.sign(key, hashes.SHA256())
        certificate = folder / "ca.pem"
        certificate.write_bytes(own.public_bytes(Encoding.PEM))
        return cls(folder, certificate, own, key)

    def issue(
        self,
        *names: str,
        file: str = "",
        valid_from: timedelta = -_DAY,
        valid_until: timedelta = _DAY,
    ) -> tuple[Path, Path]:
        """Issue a certificate for host names, addresses and URIs.

        Args:
            names: The subject alternative names.
            file: The name of the files without their suffix; by default the first name.
            valid_from: Start of the validity, relative to now.
            valid_until: End of the validity, relative to now.

        Returns:
            The PEM files of the certificate and the key.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, names[0])])
        builder = _builder(
            subject, key.public_key(), self._own.subject, valid_from, valid_until
        ).add_extension(x509.SubjectAlternativeName(_general_names(names)), critical=False)
        issued = builder.sign(self._key, hashes.SHA256())
        certificate = self.folder / f"{file or names[0]}.pem"
        key_file = certificate.with_suffix(".key")
        certificate.write_bytes(issued.public_bytes(Encoding.PEM))
        key_file.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, key_file


def _builder(
    subject: x509.Name,
    key: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    valid_from: timedelta,
    valid_until: timedelta,
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + valid_from)
        .not_valid_after(now + valid_until)
    )


def _general_names(names: Sequence[str]) -> list[x509.GeneralName]:
    found: list[x509.GeneralName] = []
    for name in names:
        if "://" in name:
            found.append(x509.UniformResourceIdentifier(name))
            continue
        try:
            found.append(x509.IPAddress(ipaddress.ip_address(name)))
        except ValueError:
            found.append(x509.DNSName(name))
    return found
