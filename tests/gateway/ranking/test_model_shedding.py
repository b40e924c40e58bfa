"""When models are what limits the backends."""

from __future__ import annotations

from marquee_services.gateway.ranking.model_shedding import ModelLoad


class Load:
    """A measurement with a clock that the test sets."""

    def __init__(self) -> None:
        self.now = 100.0
        self.measured = ModelLoad(lambda: self.now)

    def after(self, seconds: float, **totals: float) -> bool:
        """Return whether the load is high after some seconds, given the backends' totals."""
        self.now += seconds
        return self.measured.is_high(totals)


def test_a_backend_that_computes_most_of_the_time_is_limited_by_models() -> None:
    """The last whole period counts, and one busy backend is enough."""
    load = Load()
    assert not load.after(0, cf=50.0, inference=9.0)
    assert not load.after(1, cf=51.0, inference=9.0)
    assert load.after(1, cf=51.9, inference=9.0)
    assert load.after(1, cf=51.9, inference=9.0)
    assert not load.after(1, cf=52.9, inference=9.1)


def test_a_measurement_that_was_interrupted_says_nothing() -> None:
    """After a time without overload, the load is measured again first."""
    load = Load()
    load.after(0, cf=0.0)
    assert not load.after(10, cf=10.0)
    assert load.after(2, cf=12.0)


def test_a_restarted_backend_is_not_busy() -> None:
    """Its total starts at zero again, and a new backend has no earlier total."""
    load = Load()
    load.after(0, cf=50.0)
    assert not load.after(2, cf=1.0, inference=90.0)
