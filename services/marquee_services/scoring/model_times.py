"""Measures how long each model takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from prometheus_client import Histogram

from marquee_services.server.metrics import Metrics

_P = ParamSpec("_P")
_T = TypeVar("_T")
_BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Timer(Protocol):
    """Runs a piece of a model's work."""

    def run(
        self,
        model: str,
        operation: str,
        work: Callable[_P, _T],
        /,
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Returns what the work returns.

        Args:
            model: The model's name.
            operation: What it does: `rank`, `score`, `retrieve`, `compare` or `explain`.
            work: The work.
            args: Its arguments.
            kwargs: Its keyword arguments.
        """


class NoTimer:
    """Measures nothing."""

    def run(
        self,
        _model: str,
        _operation: str,
        work: Callable[_P, _T],
        /,
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Returns what the work returns."""
        return work(*args, **kwargs)


class ModelTotals:
    """Adds up how long each model takes.

    Attributes:
        totals: The seconds that each model has taken so far, by its name.
    """

    def __init__(self) -> None:
        """Has measured nothing."""
        self.totals: dict[str, float] = {}

    def run(
        self,
        model: str,
        operation: str,
        work: Callable[_P, _T],
        /,
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Returns what the work returns, and records how long it took."""
        start = time.perf_counter()
        try:
            return work(*args, **kwargs)
        finally:
            seconds = time.perf_counter() - start
            self.totals[model] = self.totals.get(model, 0.0) + seconds
            self.record(model, operation, seconds)

    def record(self, model: str, operation: str, seconds: float) -> None:
        """Is called with each time; does nothing."""


class ModelTimes(ModelTotals):
    """Records times in the metric `marquee_model_seconds` as well."""

    def __init__(self, metrics: Metrics) -> None:
        """Registers the metric."""
        super().__init__()
        self._seconds = Histogram(
            "marquee_model_seconds",
            "Seconds that a model took for a batch.",
            ("model", "operation"),
            buckets=_BUCKETS_S,
            registry=metrics.registry,
        )

    def record(self, model: str, operation: str, seconds: float) -> None:
        """Observes a time."""
        self._seconds.labels(model, operation).observe(seconds)
