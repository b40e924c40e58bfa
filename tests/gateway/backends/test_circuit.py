"""When a replica is left out, and when it is called again. Time is simulated."""

from __future__ import annotations

from marquee_services.gateway.backends.circuit import Circuit


def record(circuit: Circuit, bad: int, good: int, now: float) -> None:
    """Counts so many bad calls, and then so many good ones."""
    for number in range(bad + good):
        circuit.record(number < bad, now)


def test_several_bad_calls_of_the_last_ones_make_a_replica_ail() -> None:
    """One late call is none too many, and what is long ago does not count."""
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


def test_an_open_circuit_is_tried_by_one_call_at_a_time() -> None:
    """After its pause, and again after each trial that was in time; then it closes."""
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
    """A replica that stays slow costs fewer and fewer trials, but is never given up."""
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


def test_a_replica_that_comes_and_goes_is_left_out_for_longer_each_time() -> None:
    """The pause is short again only after the circuit has been closed for long."""
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
