"""Checks pinned versions for known vulnerabilities: `python -m audit constraints.txt`.

It queries OSV (https://osv.dev) in one request. Without network access, `--database` or
AUDIT_DATABASE can name a copy of OSV's database (`PyPI/all.zip` in its bucket); otherwise the audit
reports that nothing was checked. Advisories in `accepted.toml`, each with a reason, do not fail it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tomllib
import urllib.request
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

OSV = "https://api.osv.dev/v1/querybatch"
ACCEPTED = Path(__file__).with_name("accepted.toml")
_TIMEOUT_S = 10.0
_PINNED = re.compile(r"^(?P<name>[\w.-]+)(\[[\w,-]+\])?==(?P<version>[^\s;]+)")

Pins = Mapping[str, str]
# Ids of advisories by package name.
Found = dict[str, list[str]]


def pins(text: str) -> dict[str, str]:
    """Parses the versions that a constraints file pins, by canonical package name."""
    matches = filter(None, map(_PINNED.match, text.splitlines()))
    return {canonicalize_name(m["name"]): m["version"] for m in matches}


def query(versions: Pins, url: str) -> Found:
    """Queries OSV for advisories that affect the versions.

    Args:
        versions: Versions by package name.
        url: URL of OSV's batch query.

    Returns:
        The ids of the advisories by package name.

    Raises:
        OSError: OSV cannot be reached, or its response is not valid.
    """
    names = list(versions)
    queries = [
        {"package": {"name": name, "ecosystem": "PyPI"}, "version": versions[name]}
        for name in names
    ]
    request = urllib.request.Request(  # noqa: S310 - the constant above or a test's server
        url, json.dumps({"queries": queries}).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:  # noqa: S310
        try:
            results = json.load(response)["results"]
        except (ValueError, KeyError, TypeError) as error:
            raise OSError(f"the response of {url} is not valid") from error
    return {
        name: sorted(advisory["id"] for advisory in result["vulns"])
        for name, result in zip(names, results, strict=True)
        if result.get("vulns")
    }


def look_up(versions: Pins, database: Path) -> Found:
    """Finds advisories that affect the versions in a copy of OSV's database.

    Args:
        versions: Versions by package name.
        database: A zip file of advisories as JSON.

    Returns:
        The ids of the advisories by package name.

    Raises:
        OSError: The file cannot be read.
    """
    found: Found = {}
    with zipfile.ZipFile(database) as archive:
        for member in archive.namelist():
            advisory = json.loads(archive.read(member))
            if "withdrawn" in advisory:
                continue
            for affected in advisory.get("affected", ()):
                name = canonicalize_name(affected.get("package", {}).get("name", ""))
                if name in versions and _affects(affected, versions[name]):
                    ids = found.setdefault(name, [])
                    ids.extend({advisory["id"]} - set(ids))
    return {name: sorted(ids) for name, ids in found.items()}


def _affects(affected: Mapping[str, Any], version: str) -> bool:
    """Returns whether a version is listed or in a range (OSV schema 1.6, `affected`)."""
    if version in affected.get("versions", ()):
        return True
    ranges = [r for r in affected.get("ranges", ()) if r.get("type") == "ECOSYSTEM"]
    return any(_in_range(r.get("events", ()), Version(version)) for r in ranges)


def _in_range(events: Iterable[Mapping[str, str]], version: Version) -> bool:
    inside = False
    for event in events:
        ((kind, text),) = event.items()
        try:
            bound = Version(text)
        except InvalidVersion:
            continue
        if kind == "introduced" and version >= bound:
            inside = True
        elif (kind == "fixed" and version >= bound) or (
            kind == "last_affected" and version > bound
        ):
            inside = False
    return inside


def main(arguments: Sequence[str], url: str = OSV, accepted_file: Path = ACCEPTED) -> int:
    """Runs the audit; the exit status is 1 if there are advisories that are not accepted."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("constraints", type=Path, help="file with pinned versions")
    parser.add_argument(
        "--database",
        type=Path,
        default=os.environ.get("AUDIT_DATABASE"),
        help="copy of OSV's PyPI/all.zip, to audit without network access",
    )
    parsed = parser.parse_args(arguments)
    versions = pins(parsed.constraints.read_text())
    try:
        found = look_up(versions, parsed.database) if parsed.database else query(versions, url)
    except OSError as error:
        print(f"NOT AUDITED: {error}; use --database to audit without network")  # noqa: T201
        return 0
    accepted = tomllib.loads(accepted_file.read_text())
    failed = False
    for name, ids in sorted(found.items()):
        for advisory in ids:
            reason = accepted.get(advisory)
            failed |= reason is None
            verdict = "VULNERABLE" if reason is None else f"accepted: {reason}"
            print(f"{name} {versions[name]} {advisory} {verdict}")  # noqa: T201
    print(f"{len(versions)} pinned versions audited")  # noqa: T201
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
