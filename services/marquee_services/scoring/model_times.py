"""Measures the time that each model takes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import ParamSpec, Protocol, TypeVar

from prometheus_client import Histogram

from marquee_services.server.admission.priority import give_way
from marquee_services.server.telemetry.metrics import Metrics

_P = ParamSpec("_P")
_T = TypeVar("_T")
_BUCKETS_S = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)


class Timer(Protocol):
    """Runs the work of models, and may measure its time."""

    def run(
        self,
        model: str,
        operation: str,
        work: Callable[_P, _T],
        /,
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Calls a function and returns its result.

        Args:
            model: The model's name.
            operation: The operation: `rank`, `score`, `retrieve`, `compare` or `explain`.
            work: The function.
            args: Arguments of the function.
            kwargs: Keyword arguments of the function.
        """


class NoTimer:
    """A timer that measures nothing."""

    def run(
        self,
        _model: str,
        _operation: str,
        work: Callable[_P, _T],
        /,
        *args: _P.args,
        **kwargs: _P.kwargs,
    ) -> _T:
        """Calls a function and returns its result."""
        return work(*args, **kwargs)


class ModelTotals:
    """A timer that sums up the time of each model.

    Attributes:
        totals: The seconds that each model has taken so far, by the model's name.
    """

    def __init__(self) -> None:
        """Starts without measurements."""
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
        """Calls a function, records its time, and returns its result.

        Before that, work for a batch gives way to single calls.
        """
        give_way()
        start = time.perf_counter()
        try:
            return work(*args, **kwargs)
        finally:
            seconds = time.perf_counter() - start
            self.totals[model] = self.totals.get(model, 0.0) + seconds
            self.record(model, operation, seconds)

    def record(self, model: str, operation: str, seconds: float) -> None:
        """Receives each measured time; does nothing here, for subclasses to override."""


class ModelTimes(ModelTotals):
    """A timer that also records times in the metric `marquee_model_seconds`."""

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
        """Records a time in the metric."""
        self._seconds.labels(model, operation).observe(seconds)
