"""The names of headless Services, in a hosts file that only these processes see."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

_HOSTS = Path("/etc/hosts")


def enter_namespace(module: str, arguments: Sequence[str]) -> None:
    """Replaces this process by a module that runs in a new mount namespace.

    Root is not needed where the kernel permits user namespaces.

    Args:
        module: The module to run.
        arguments: Its command-line arguments.

    Raises:
        RuntimeError: This user may not create a mount namespace.
    """
    unshare = shutil.which("unshare") or ""
    for options in (["--mount"], ["--mount", "--map-root-user"]):
        tried = [unshare, *options, "true"]
        if unshare and not subprocess.run(tried, capture_output=True).returncode:
            command = [unshare, *options, sys.executable, "-m", module, *arguments]
            os.execv(unshare, command)  # noqa: S606 - runs without a shell on purpose
    raise RuntimeError("needs `unshare --mount`: be root, or allow user namespaces")


class HostNames:
    """Maps each host name to several addresses, for this process and its subprocesses.

    Use it in a private mount namespace. Changes are atomic for lookups.
    """

    def __init__(self, folder: Path) -> None:
        """Creates the folder for the hosts files."""
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._addresses: defaultdict[str, list[str]] = defaultdict(list)
        self._versions = 0

    def add(self, name: str, address: str) -> None:
        """Adds an address to a name."""
        self._addresses[name].append(address)
        self._publish()

    def remove(self, name: str, address: str) -> None:
        """Removes an address from a name."""
        self._addresses[name].remove(address)
        self._publish()

    def close(self) -> None:
        """Removes all names."""
        for _ in range(self._versions):
            subprocess.run(["umount", str(_HOSTS)], check=True)

    def _publish(self) -> None:
        self._versions += 1
        made = self._folder / f"hosts-{self._versions}"
        lines = [f"{a} {name}" for name, found in self._addresses.items() for a in found]
        made.write_text("\n".join(["127.0.0.1 localhost", *lines, ""]))
        # A bind mount replaces the previous file atomically, whereas a file that is rewritten could
        # be read half-written.
        subprocess.run(["mount", "--bind", str(made), str(_HOSTS)], check=True)
