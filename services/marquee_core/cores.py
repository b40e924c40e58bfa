"""The number of CPU cores that this process may use, by its CPU affinity and its cgroup quota.

A container with a CPU limit may run on all cores of its host, but only for a share of the time. If
a library starts one thread per core of the host, the kernel throttles the threads.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, MutableMapping
from pathlib import Path, PurePosixPath

_PROC_CGROUP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")
# Read by OpenBLAS, OpenMP, MKL, Numba, TensorFlow and Polars before they start threads.
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
    """Returns the number of CPU cores that this process may use, rounded up and at least 1."""
    quota = cgroup_quota()
    cores = _affinity()
    return cores if quota is None else max(1, min(cores, math.ceil(quota)))


def thread_limits(threads: int) -> dict[str, str]:
    """Returns environment variables that limit the threads of each numerical library.

    The libraries read them when they are imported.

    Args:
        threads: The number of threads per library.
    """
    return dict.fromkeys(_VARIABLES, str(threads))


def limit_library_threads(environment: MutableMapping[str, str] = os.environ) -> None:
    """Limits the threads of numerical libraries to the CPU quota.

    Call it before the libraries are imported. Variables that are already set keep their values. If
    there is no quota, nothing is set and the libraries detect the cores themselves.

    Args:
        environment: The environment variables to change.
    """
    if usable_cores() < _affinity():
        for name in _VARIABLES:
            environment.setdefault(name, str(usable_cores()))


def cgroup_quota(cgroup_file: Path = _PROC_CGROUP, root: Path = _CGROUPS) -> float | None:
    """Returns the CPU quota of the process's cgroups, in cores; None for no limit.

    A cgroup's quota also applies to its descendants, so this is the smallest one on the path to
    the root.

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
    """Yields the quotas of a cgroup and of its ancestors.

    Args:
        line: The line of the cgroup file, `id:controllers:path`.
        root: Where the cgroup file systems are mounted.
    """
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
    """Returns the quota of one cgroup: `cpu.max` in version 2, two files in version 1."""
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
