"""TLS certificates for the tests."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Authority:
    """A certificate authority that only the tests trust.

    Attributes:
        folder: The folder that certificates and keys are written to.
        certificate: The PEM file of the authority's own certificate.
    """

    folder: Path
    certificate: Path
    _authority: trustme.CA

    @classmethod
    def create(cls, folder: Path) -> Authority:
        """Creates an authority and writes its certificate to a folder."""
        authority = trustme.CA()
        certificate = folder / "ca.pem"
        authority.cert_pem.write_to_path(certificate)
        return cls(folder, certificate, authority)

    def issue(self, *names: str) -> tuple[Path, Path]:
        """Issues a certificate for host names and addresses.

        Returns:
            The PEM files of the certificate chain and of the key.
        """
        issued = self._authority.issue_cert(*names)
        certificate, key = self.folder / f"{names[0]}.pem", self.folder / f"{names[0]}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(key)
        return certificate, key
