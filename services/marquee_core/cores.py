"""How many CPU cores this process may use: those it may run on, within the quota of its cgroup.

A container with a CPU limit runs on all cores of its host, for a share of the time. A library that
starts a thread for each core of the host then gets its threads stopped in the middle of work.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path, PurePosixPath

_PROC_CGROUP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")
# What OpenBLAS, OpenMP, MKL, Numba, TensorFlow and Polars read before they start threads.
_VARIABLES = (
    "OPENBLAS_NUM_THREADS",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
    "POLARS_MAX_THREADS",
)


def usable_cores() -> int:
    """The number of CPU cores that this process may use, at least 1; parts of cores count up."""
    quota = cgroup_quota()
    cores = _affinity()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def thread_limits(threads: int) -> dict[str, str]:
    """The environment of a process whose libraries start so many threads each, before imports."""
    return dict.fromkeys(_VARIABLES, str(threads))


def limit_library_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Keeps libraries from starting more threads than the quota allows.

    Has no effect on libraries that are imported already, and does not override variables that are
    set. Without a quota nothing is set: the libraries find the cores themselves.
    """
    if usable_cores() < _affinity():
        for name in _VARIABLES:
            environment.setdefault(name, str(usable_cores()))


def cgroup_quota(cgroup_file: Path = _PROC_CGROUP, root: Path = _CGROUPS) -> float | None:
    """Returns the CPU time that the process's cgroups allow, in cores; None for no limit.

    A cgroup's limit holds for all below it, so the smallest one on the way to the root counts.

    Args:
        cgroup_file: The file that lists the process's cgroups (cgroups(7)).
        root: Where the cgroup file systems are mounted.
    """
    try:
        lines = cgroup_file.read_text().splitlines()
    except OSError:
        return None
    quotas = [quota for line in lines for quota in _quotas(line, root)]
    return min(quotas, default=None)


def _quotas(line: str, root: Path) -> Iterator[float]:
    """Returns the limits of a cgroup and of those above it; the line is `id:controllers:path`."""
    _, _, rest = line.partition(":")
    controllers, _, path = rest.partition(":")
    names = controllers.split(",")
    if not controllers:
        mounts = [root, root / "unified"]
    elif "cpu" in names:
        mounts = [root / controllers, root / "cpu"]
    else:
        return
    relative = PurePosixPath(path.lstrip("/"))
    for mount in mounts:
        for folder in (relative, *relative.parents):
            quota = _quota_of(mount / folder)
            if quota is not None:
                yield quota


def _quota_of(folder: Path) -> float | None:
    """Returns the limit of one cgroup: `cpu.max` in version 2, two files in version 1."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota = (folder / "cpu.cfs_quota_us").read_text().strip()
            period = (folder / "cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    if not (quota.isdigit() and period.isdigit() and int(quota) and int(period)):
        return None  # "max" or -1: no limit
    return int(quota) / int(period)


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
