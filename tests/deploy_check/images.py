"""Parses the Dockerfile, and checks what its stages copy, install and start."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatch

from deploy_check.objects import Finding
from locations import PROJECT

DOCKERFILE = PROJECT / "deploy" / "images" / "Dockerfile"
TARGETS = ("gateway", "cf", "inference", "trainer")
_PINNED = re.compile(r"^[\w./-]+:(?!latest@)[\w.-]+@sha256:[0-9a-f]{64}$")
_SUPPORTED = re.compile(r":3\.1[1-9]\b")
_USER = "10001"
_PACKAGES = "/opt/marquee"
_SECRET = re.compile(r"(?i)\w*(secret|password|token|credential)\w*=\S")
_DOWNLOADS = re.compile(r"\b(curl|wget)\b")
_OPEN_TO_ALL = re.compile(r"\bchmod\b.*(\b0?777\b|\b[ao]\+\w*w)")
_ENTRY_POINTS = {
    **{name: ["marquee", "serve", name] for name in TARGETS if name != "trainer"},
    "trainer": ["marquee", "train"],
}
_INSTALLERS = re.compile(r"\b(pip3? install|apt(-get)? install|apk add|curl|wget)\b")
_UNPINNED = re.compile(r"\bpip3? install (?:-\S+ )*(?!-)(?![^&|;]*(?:==|-c |--constraint))")


@dataclass
class Image:
    """A stage of the Dockerfile.

    Attributes:
        name: Name of the stage.
        base: The image or stage that it is built from.
        instructions: The instructions after FROM, as pairs of keyword and arguments.
    """

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)

    def all(self, keyword: str) -> list[str]:
        """Returns the arguments of all instructions with a keyword."""
        return [arguments for name, arguments in self.instructions if name == keyword]

    @property
    def entry_point(self) -> list[str]:
        """The command of the last ENTRYPOINT; empty unless it is in exec form."""
        lines = self.all("ENTRYPOINT")
        if not lines or not lines[-1].startswith("["):
            return []
        found: list[str] = json.loads(lines[-1])
        return found


def images(text: str | None = None) -> dict[str, Image]:
    """Parses the stages of a Dockerfile.

    Args:
        text: The contents of the Dockerfile; None for the project's own.

    Returns:
        The stages by name.
    """
    found: dict[str, Image] = {}
    lines = re.sub(r"\\\n", " ", DOCKERFILE.read_text() if text is None else text).splitlines()
    current: Image | None = None
    for line in lines:
        keyword, _, arguments = line.strip().partition(" ")
        if not keyword or keyword.startswith("#"):
            continue
        if keyword == "FROM":
            base, _, name = arguments.partition(" AS ")
            current = Image(name.strip() or base, base.strip())
            found[current.name] = current
        elif current is not None:
            current.instructions.append((keyword, arguments.strip()))
    return found


def check_images(text: str | None = None) -> list[Finding]:
    """Finds faults in the Dockerfile, or in the given contents of one."""
    stages = images(text)
    return [Finding("Dockerfile", problem) for problem in _problems(stages)]


def _problems(stages: dict[str, Image]) -> Iterator[str]:
    for stage in stages.values():
        if stage.base not in stages and not _PINNED.match(stage.base):
            yield f"the base image {stage.base} is not pinned by tag and digest"
        elif stage.base not in stages and not _SUPPORTED.search(stage.base):
            yield f"the base image {stage.base} has an unsupported Python version"
        yield from _any_stage(stage, stages)
        for run in stage.all("RUN"):
            if _UNPINNED.search(run):
                yield f"stage {stage.name} installs unpinned packages: {run}"
        for source in _missing_sources(stage, stages):
            yield f"stage {stage.name} copies {source}, which does not exist"
    for target in TARGETS:
        if target not in stages:
            yield f"there is no stage {target}"
            continue
        yield from _target(stages[target], stages)


def _any_stage(stage: Image, stages: dict[str, Image]) -> Iterator[str]:
    """Checks the rules that apply to every stage."""
    for source in stage.all("ADD"):
        yield f"stage {stage.name} adds {source}: use COPY, which does not download or unpack"
    for keyword in ("ENV", "ARG"):
        for value in stage.all(keyword):
            if _SECRET.search(value):
                yield f"stage {stage.name} contains a secret: {keyword} {value.partition('=')[0]}"
    copied = {part.split()[-1] for s in _ancestors(stage, stages) for part in s.all("COPY")}
    for run in stage.all("RUN"):
        if _DOWNLOADS.search(run):
            yield f"stage {stage.name} downloads unpinned files: {run}"
        if _OPEN_TO_ALL.search(run):
            yield f"stage {stage.name} makes files world-writable: {run}"
        if run.startswith("/") and run.split()[0] not in copied:
            yield f"stage {stage.name} runs {run.split()[0]}, which it does not copy"


def _target(stage: Image, stages: dict[str, Image]) -> Iterator[str]:
    line = _ancestors(stage, stages)
    copied = _copied_stages(stage, stages)
    users = stage.all("USER")
    if users != [_USER]:
        yield f"stage {stage.name} does not run as user {_USER}"
    elif not any(f"--uid {_USER} " in run for s in line for run in s.all("RUN")):
        yield f"stage {stage.name} does not create the user {_USER}"
    if stage.entry_point != _ENTRY_POINTS[stage.name]:
        yield f"stage {stage.name} lacks the ENTRYPOINT {json.dumps(_ENTRY_POINTS[stage.name])}"
    for run in (run for s in line for run in s.all("RUN") if _INSTALLERS.search(run)):
        yield f"stage {stage.name} installs packages: {run}"
    if not any(f"PATH={_PACKAGES}/bin:" in value for s in line for value in s.all("ENV")):
        yield f"PATH of stage {stage.name} lacks {_PACKAGES}/bin"
    for part in stage.all("COPY"):
        if part.startswith("--from=") and part.split()[1:] != [_PACKAGES, _PACKAGES]:
            yield f"stage {stage.name} copies something other than {_PACKAGES}: {part}"
    if any(not part.startswith("--from=") for part in stage.all("COPY")):
        yield f"stage {stage.name} copies files from the build context"
    removed = " ".join(run for s in line for run in s.all("RUN") if "pip uninstall" in run)
    for tool in ("pip", "setuptools", "wheel"):
        if tool not in removed.replace("pip uninstall", "").split():
            yield f"stage {stage.name} contains {tool}"
    installs = [
        run
        for name in copied
        for s in _ancestors(stages[name], stages)
        for run in s.all("RUN")
        if "install" in run
    ]
    if not installs:
        yield f"stage {stage.name} copies no installed packages"
    extras = {e for run in installs for e in run.split()[-1].split(",")}
    missing = {stage.name, *extras} - _extras() if installs else set()
    others = extras & {*TARGETS} - {stage.name}
    if missing or others or (installs and stage.name not in extras):
        yield f"stage {stage.name} installs the wrong extras: {', '.join(sorted(extras))}"
    for run in installs:
        yield from _install(run, [s for name in copied for s in _ancestors(stages[name], stages)])


def _install(run: str, line: list[Image]) -> Iterator[str]:
    """Checks that a command, or the script that it runs, installs the pinned versions."""
    script = PROJECT / "deploy" / "images" / run.split()[0].rpartition("/")[2]
    text = script.read_text() if script.is_file() else run
    constraints = re.search(r"(?:--constraint|-c)[ =](\S+)", text)
    targets = {part.split()[-1] for s in line for part in s.all("COPY")}
    if "/wheels" not in targets:
        yield f"{run!r} has no wheel to install"
    if constraints is None or constraints[1] not in targets:
        yield f"{run!r} does not use the constraints file"
    if script.is_file() and not {"wheel", "setuptools", "libclang"} <= set(text.split()):
        yield f"{run!r} leaves wheel, setuptools or libclang in the image"


def _ancestors(stage: Image, stages: dict[str, Image]) -> list[Image]:
    """Returns a stage and the stages that it is built from."""
    line = [stage]
    # A stage without a name is named after its base.
    while line[-1].base in stages and stages[line[-1].base] not in line:
        line.append(stages[line[-1].base])
    return line


def _copied_stages(stage: Image, stages: dict[str, Image]) -> list[str]:
    """Returns the existing stages that a stage copies from."""
    sources = [m[1] for part in stage.all("COPY") if (m := re.match(r"--from=(\S+)", part))]
    return [source for source in sources if source in stages]


def _missing_sources(stage: Image, stages: dict[str, Image]) -> Iterator[str]:
    ignored = (PROJECT / ".dockerignore").read_text().split()
    for part in stage.all("COPY"):
        words = part.split()
        if words[0].startswith("--from="):
            if words[0].removeprefix("--from=") not in stages:
                yield words[0]
            continue
        for source in words[:-1]:
            hidden = any(fnmatch(source, pattern) for pattern in ignored)
            if hidden or not any(PROJECT.glob(source) if source != "." else [PROJECT]):
                yield source


def _extras() -> set[str]:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    return set(project["optional-dependencies"])
