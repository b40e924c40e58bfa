"""Processes use the cores of their container, not those of the host."""

from __future__ import annotations

from pathlib import Path

import pytest

from marquee_core import cores


def cgroup(tmp_path: Path, listed: str, files: dict[str, str]) -> tuple[Path, Path]:
    """Return a file that lists cgroups, and a folder with their files."""
    listing, root = tmp_path / "cgroup", tmp_path / "fs"
    listing.write_text(listed)
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return listing, root


@pytest.mark.parametrize(
    ("listed", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "150000 100000\n"}, 1.5),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "200000 100000"}, 2.0),
        ("0::/a/b\n", {"a/b/cpu.max": "50000 100000", "a/cpu.max": "200000 100000"}, 0.5),
        (
            "4:memory:/x\n3:cpu,cpuacct:/x\n",
            {
                "cpu,cpuacct/x/cpu.cfs_quota_us": "300000",
                "cpu,cpuacct/x/cpu.cfs_period_us": "100000",
            },
            3.0,
        ),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("1:cpu:/\n", {}, None),
        ("", {}, None),
    ],
)
def test_the_quota_is_that_of_the_tightest_cgroup(
    tmp_path: Path, listed: str, files: dict[str, str], quota: float | None
) -> None:
    """The quota is found in both versions of cgroups, with and without a cgroup namespace."""
    assert cores.cgroup_quota(*cgroup(tmp_path, listed, files)) == quota


@pytest.mark.parametrize(("quota", "found"), [(None, 8), (1.5, 2), (0.2, 1), (64.0, 8)])
def test_libraries_start_no_more_threads_than_the_quota_allows(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, found: int
) -> None:
    """Fractions of a core are rounded up, and a value set by the user is kept."""
    monkeypatch.setattr(cores, "cgroup_quota", lambda: quota)
    monkeypatch.setattr(cores, "_affinity", lambda: 8)
    assert cores.usable_cores() == found
    environment = {"OMP_NUM_THREADS": "5"}
    cores.limit_library_threads(environment)
    assert environment["OMP_NUM_THREADS"] == "5"
    assert environment.get("NUMBA_NUM_THREADS") == (str(found) if found < 8 else None)
