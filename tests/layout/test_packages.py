"""What the tree promises to someone who reads it for the first time."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from locations import PROJECT

SOURCES = ("clients/python", "services", "trainer")
MOST_LINES = 400
# Generated, executed by Alembic, or without code of its own.
WITHOUT_GUIDE = ("marquee/v1", "migrations")
SERVICE_NAMES = PROJECT / "services" / "marquee_core" / "service_names.py"


@cache
def files(pattern: str, *folders: str) -> list[Path]:
    """The files of the checkout in some folders, without those that git ignores."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *folders]
    listed = subprocess.run(command, cwd=PROJECT, check=True, capture_output=True, text=True)
    found = [PROJECT / name for name in listed.stdout.splitlines()]
    return [path for path in found if path.match(pattern) and path.exists()]


def packages() -> list[str]:
    """The packages that people read, by their path in the checkout."""
    found = [str(path.parent.relative_to(PROJECT)) for path in files("__init__.py", *SOURCES)]
    return [path for path in found if not any(part in path for part in WITHOUT_GUIDE)]


def guide(package: str) -> str:
    """The docstring of a package."""
    tree = ast.parse((PROJECT / package / "__init__.py").read_text())
    return ast.get_docstring(tree) or ""


def named_files(package: str) -> set[str]:
    """The modules that a package's docstring names."""
    return set(re.findall(r"`([\w./]+\.py)`", guide(package)))


@pytest.mark.parametrize("package", packages())
def test_a_package_introduces_itself(package: str) -> None:
    """Three to ten lines: what it is for, what it imports, and the file to read first."""
    text = guide(package)
    # An example, as `help()` shows it, is not counted.
    prose = [line for line in text.splitlines() if line and not line.startswith("    ")]
    assert 3 <= len(prose) <= 10
    words = " ".join(text.split())
    assert re.search(r"\b[Ii]mports?\b", words), "what it may import"
    assert re.search(r"(Start with|[Rr]ead) `", words), "the file to read first"


@pytest.mark.parametrize("package", packages())
def test_the_files_that_a_package_names_exist(package: str) -> None:
    """They are in the package, or in its parents."""
    folder = PROJECT / package
    bases = (folder, *folder.parents)
    for name in named_files(package):
        assert any((base / name).exists() for base in bases), name


@pytest.mark.parametrize("folder", SOURCES)
def test_no_module_is_long(folder: str) -> None:
    """Generated code aside, a module has at most 400 lines."""
    modules = [path for path in files("*.py", folder) if "/marquee/v1/" not in str(path)]
    lengths = {str(path): len(path.read_text().splitlines()) for path in modules}
    assert lengths
    assert {name: count for name, count in lengths.items() if count > MOST_LINES} == {}


def test_nothing_is_loose_at_the_top_of_the_trainer() -> None:
    """Every module has a room, except `threads`, which all rooms use."""
    top = PROJECT / "trainer" / "marquee_trainer"
    assert {path.name for path in top.glob("*.py")} == {"__init__.py", "threads.py"}


def test_services_are_named_in_one_place() -> None:
    """Code of the trainer and the services takes the names from `service_names.py`."""
    names = {"cf", "gateway", "inference", "standalone"}
    spelled = set()
    for path in files("*.py", "services", "trainer"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Constant) and node.value in names:
                spelled.add(path)
    assert spelled == {SERVICE_NAMES}
