"""Which replica is called, and when a hedge is sent."""

from __future__ import annotations

from marquee_services.gateway.backends.latency import HedgeBudget, PeakLatency, hedge_after


def test_the_average_rises_immediately_and_falls_slowly() -> None:
    """One slow call suffices to avoid a replica, and it takes seconds to be preferred again."""
    latency = PeakLatency()
    latency.observe(0.010, 0.0)
    latency.observe(0.500, 1.0)
    assert latency.value(1.0) == 0.5
    latency.observe(0.010, 1.1)
    assert latency.value(1.1) > 0.4
    assert latency.value(11.1) < 0.1


def test_similar_latencies_count_as_equal() -> None:
    """Relative differences below the tolerance, or of a few milliseconds, are ignored."""
    fast, faster, slow = PeakLatency(), PeakLatency(), PeakLatency()
    fast.observe(0.0035, 0.0)
    faster.observe(0.0010, 0.0)
    slow.observe(0.0350, 0.0)
    assert fast.magnitude(0.0) == faster.magnitude(0.0) < slow.magnitude(0.0)


def test_hedges_are_a_small_share_of_the_calls() -> None:
    """If every call is late, at most one in twenty is hedged after the first few."""
    budget = HedgeBudget()
    hedged = 0
    for _ in range(1_000):
        budget.add_call()
        hedged += budget.take()
    assert 50 <= hedged <= 61


def test_a_hedge_waits_for_a_multiple_of_the_usual_latency() -> None:
    """The fastest replica determines the delay, unless its latency is very short."""
    assert hedge_after([0.5, 0.05]) == 3 * 0.05
    assert hedge_after([0.0, 0.001]) == 0.02
