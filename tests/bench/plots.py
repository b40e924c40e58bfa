"""Plots of throughput and latency against concurrency."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

_SIZE = (7.0, 4.5)  # inches
_DPI = 120


def plot_concurrency(series: Mapping[str, Sequence[float]], folder: Path) -> list[Path]:
    """Plots the throughput and latency of the section `concurrency`.

    Args:
        series: The series of the section's table.
        folder: Folder for the image files.

    Returns:
        The image files.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib.figure import Figure

    lines = {
        "throughput": (
            "calls/s",
            "linear",
            {"gateway": "gateway_per_s", "echo": "echo_per_s"},
        ),
        "latency": (
            "ms",
            "log",
            {
                f"{server} {percentile}": f"{server}_{percentile}_ms"
                for server in ("gateway", "echo")
                for percentile in ("p50", "p99")
            },
        ),
    }
    drawn = []
    for name, (unit, scale, keys) in lines.items():
        figure = Figure(figsize=_SIZE, layout="constrained")
        axes = figure.add_subplot()
        for label, key in keys.items():
            axes.plot(series["in_flight"], series[key], marker="o", label=label)
        axes.set_xscale("log", base=2)
        axes.set_yscale(scale)
        if scale == "linear":
            axes.set_ylim(bottom=0)
        axes.set_xticks(series["in_flight"], [f"{level:g}" for level in series["in_flight"]])
        axes.set_xlabel("calls in flight")
        axes.set_ylabel(unit)
        axes.set_title(f"Recommend: {name}")
        axes.grid(alpha=0.3)
        axes.legend()
        drawn.append(folder / f"{name}.png")
        figure.savefig(drawn[-1], dpi=_DPI)
    return drawn
