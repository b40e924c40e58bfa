"""Approximate retrieval from a large catalogue against the exact one."""

from __future__ import annotations

from bench.context import Context
from bench.report import Row, Table, Target

_RECALL, _SPEED = Target(">=", 0.95), Target(">=", 10.0)


def measure(context: Context) -> Table:
    """Says that there is none: releases retrieve exactly."""
    nan = float("nan")
    name = f"of {context.config.core_items:,} items"
    return Table(
        "Large catalogue",
        [
            Row(f"recall@100 {name}", nan, "", target=_RECALL),
            Row(f"throughput {name} over exact", nan, "users/s", nan, nan, _SPEED),
        ],
        ["releases know exact retrieval only"],
    )
