"""The documents stay short where they promise it, and what they point to exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from locations import PROJECT

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "*/README.md", "deploy/**/*.md")
    for path in PROJECT.glob(pattern)
    if not any(part.startswith(".") for part in path.relative_to(PROJECT).parts)
)
ARCHITECTURE = (PROJECT / "ARCHITECTURE.md").read_text()
# Where the map's paths begin.
BASES = ("", "services", "services/marquee_services", "services/marquee_core", "trainer")


def anchors(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", document.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_lead_somewhere(document: Path) -> None:
    """A link to a file of the project names one that exists, and a heading that it has."""
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if target.startswith(("http://", "https://", "mailto:")):
            continue
        name, _, anchor = target.partition("#")
        path = document.parent / name if name else document
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(path), target


def test_the_first_page_is_short() -> None:
    """README.md has at most 130 lines; what needs more room is beside what it describes."""
    assert len((PROJECT / "README.md").read_text().splitlines()) <= 130


def test_the_birds_eye_view_has_short_bullets() -> None:
    """A bullet of ARCHITECTURE.md is read at a glance."""
    bullets = re.findall(r"^ *- .*$", ARCHITECTURE, re.MULTILINE)
    assert bullets
    assert [bullet for bullet in bullets if len(bullet) > 240] == []


def test_the_map_names_files_that_exist() -> None:
    """Every module in the table of where things happen is where it says."""
    table = ARCHITECTURE.split("## Where things happen")[1].split("\n## ")[0]
    names = re.findall(r"`([\w/…]+\.py)`", table)
    assert len(names) > 10
    for name in names:
        within = [
            name,
            *(f"{folder}/{name}" for folder in ("release", "server", "server/admission")),
        ]
        found = [
            path
            for base in BASES
            for path in within
            if list((PROJECT / base).glob(path.replace("…", "*")))
        ]
        assert found, name
