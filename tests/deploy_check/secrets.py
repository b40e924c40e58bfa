"""The Secrets that cert-manager maintains: mounted as the kubelet does, and renewed in place."""

from __future__ import annotations

import shutil
from datetime import timedelta
from pathlib import Path

from deploy_check.objects import Object, kinds
from marquee import TLS
from toy.certificates import Authority

_CALLER = "marquee-caller-tls"
_FILES = ("tls.crt", "tls.key", "ca.crt")


class Secrets:
    """The certificates of an overlay, which are also valid for the loopback address.

    Like the kubelet, this writes the files of a Secret to a new folder and then replaces a symbolic
    link to it.
    """

    def __init__(self, objects: list[Object], folder: Path) -> None:
        """Issues all certificates.

        Args:
            objects: The rendered objects.
            folder: Folder where the Secrets are mounted.
        """
        self._folder = folder
        self._certificates = [
            item["spec"]
            for item in kinds(objects, "Certificate").values()
            if not item["spec"].get("isCA")
        ]
        self._version = 0
        self._trusted = [self._new_authority("first")]
        self._issuer = self._trusted[0]
        self.write()

    def mounted(self, secret: str) -> Path:
        """Returns the folder where a Secret is mounted."""
        return self._folder / secret

    @property
    def caller(self) -> TLS | bool:
        """The certificates of a caller; False if the overlay has no certificates."""
        if not self._certificates:
            return False
        files = self.mounted(_CALLER)
        return TLS(ca=files / "ca.crt", cert=files / "tls.crt", key=files / "tls.key")

    def trust_second(self) -> None:
        """Adds a second authority that all parties trust in addition to the issuing one."""
        self._trusted.append(self._new_authority("second"))

    def issue_from_second(self) -> None:
        """Makes the authority added last the issuer of further certificates."""
        self._issuer = self._trusted[-1]

    def distrust_first(self) -> None:
        """Removes the first authority from the trusted ones."""
        del self._trusted[0]

    def write(self, valid_for: timedelta | None = None) -> None:
        """Issues new certificates with new keys, and mounts them.

        Args:
            valid_for: Validity of the certificates; None for the duration in the manifests.
        """
        self._version += 1
        authorities = b"".join(a.certificate.read_bytes() for a in self._trusted)
        for spec in self._certificates:
            secret = self.mounted(spec["secretName"])
            made = secret / f"..{self._version}"
            made.mkdir(parents=True)
            hours = timedelta(hours=float(spec["duration"].removesuffix("h")))
            issued = self._issuer.issue(
                *spec["dnsNames"],
                "127.0.0.1",
                file=spec["secretName"],
                valid_until=valid_for or hours,
            )
            for path, name in zip(issued, _FILES, strict=False):
                shutil.move(path, made / name)
            (made / "ca.crt").write_bytes(authorities)
            link = secret / "..new"
            link.symlink_to(made.name)
            link.rename(secret / "..data")
            for name in _FILES:
                if not (secret / name).is_symlink():
                    (secret / name).symlink_to(f"..data/{name}")

    def _new_authority(self, name: str) -> Authority:
        folder = self._folder / f"authority-{name}"
        folder.mkdir(parents=True)
        return Authority.create(folder, f"Tests, {name}")
