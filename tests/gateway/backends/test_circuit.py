"""The circuit breaker: when a replica is avoided, and when it is called again.

Time is simulated.
"""

from __future__ import annotations

from marquee_services.gateway.backends.circuit import Circuit


def record(circuit: Circuit, bad: int, good: int, now: float) -> None:
    """Record `bad` failed calls, then `good` successful ones."""
    for number in range(bad + good):
        circuit.record(number < bad, now)


def test_several_recent_failures_make_a_replica_unhealthy() -> None:
    """A single late call is tolerated, and old calls do not count."""
    circuit = Circuit()
    record(circuit, 1, 9, 0.0)
    assert circuit.is_healthy(0.0)
    record(circuit, 2, 0, 1.0)
    assert not circuit.fails_often(1.0)  # The first bad call is no longer among the last ten.
    assert not circuit.is_healthy(1.0)
    record(circuit, 1, 0, 2.0)
    assert circuit.fails_often(2.0)
    assert not circuit.fails_often(20.0)
    assert circuit.is_healthy(20.0)


def test_an_open_circuit_admits_one_trial_at_a_time() -> None:
    """A trial is made after each pause, and the circuit closes after successful trials."""
    circuit = Circuit()
    circuit.open(0.0)
    assert circuit.is_open
    assert not circuit.begin_trial(0.9)
    for now in (1.0, 1.1, 1.2):
        assert circuit.is_open
        assert circuit.begin_trial(now)
        assert not circuit.begin_trial(now)
        circuit.end_trial(is_good=True, now=now)
    assert not circuit.is_open
    assert circuit.is_healthy(1.2)
    assert not circuit.begin_trial(5.0)


def test_a_failed_trial_doubles_the_pause() -> None:
    """A replica that stays slow costs fewer and fewer trials, but trials never stop."""
    circuit = Circuit()
    circuit.open(0.0)
    now, pauses = 0.0, []
    for _ in range(8):
        start = now
        while not circuit.begin_trial(now):
            now += 0.5
        pauses.append(now - start)
        circuit.end_trial(is_good=False, now=now)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30]


def test_a_flapping_replica_is_avoided_for_longer_each_time() -> None:
    """The pause is short again only after the circuit has been closed for a long time."""
    circuit = Circuit()

    def open_and_close(now: float) -> float:
        circuit.open(now)
        start = now
        for _ in range(3):
            while not circuit.begin_trial(now):
                now += 0.5
            circuit.end_trial(is_good=True, now=now)
        return now - start

    assert open_and_close(0.0) == 1
    assert open_and_close(5.0) == 2
    assert open_and_close(10.0) == 4
    assert open_and_close(100.0) == 1
