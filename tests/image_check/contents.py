"""Finds files that an image should not contain."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

# File names of programs, packages and libraries that install packages or compile code.
_TOOLS = re.compile(
    r"(pip[\d.]*|wheel|easy_install.*|setuptools|clang([-+\d.]+)?|gcc([-\d.]+)?|g\+\+([-\d.]+)?|cc|c\+\+"
    r"|ld|make|(pip|wheel|setuptools|libclang)-[^/]*\.(dist-info|whl)|libclang[-\d.]*\.so.*)"
)
# The folders that would contain them; elsewhere, `wheel` or `make` may be any file.
_PLACES = re.compile(
    r"/(s?bin|site-packages|dist-packages|python-wheels|native|lib|x86_64-linux-gnu)$"
)


def build_tools(root: Path) -> Iterator[str]:
    """Yields the paths of packaging tools and compilers below a folder."""
    for folder, folders, files in os.walk(root):
        if _PLACES.search(folder):
            for name in (*folders, *files):
                if _TOOLS.fullmatch(name):
                    yield str(Path("/", Path(folder).relative_to(root), name))


def unused_folders(root: Path) -> Iterator[str]:
    """Yields the paths of package folders that no server reads: headers and tests."""
    for folder, folders, _ in os.walk(root):
        if "site-packages" in Path(folder).parts and ".dist-info" not in folder:
            for name in {"include", "tests"}.intersection(folders):
                yield str(Path("/", Path(folder).relative_to(root), name))


def megabytes(folder: Path) -> float:
    """Returns the size of all files below a folder in MB (1,000,000 bytes)."""
    found = {}
    for parent, _, files in os.walk(folder):
        for name in files:
            status = (Path(parent) / name).lstat()
            found[status.st_dev, status.st_ino] = status.st_size
    return sum(found.values()) / 1e6
