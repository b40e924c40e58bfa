"""Recommended lists are counted without a write during an answer, and lost counts are reported."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from prometheus_client import CollectorRegistry

from marquee_core.experiments import outcome
from marquee_core.experiments.outcome import read_outcome
from marquee_core.feedback.events import ListCount, LogUnavailable, user_digest
from marquee_core.feedback.log import EventLog
from marquee_services.gateway.experiments import list_counts
from marquee_services.gateway.experiments.list_counts import ListCounter
from toy.experiments import toy_experiment

TIMEOUT_S = 60.0


def counter_of(log: EventLog, **options: int) -> ListCounter:
    """Return a counter whose thread is not started, so that the test decides when it writes."""
    return ListCounter(log.write_list_counts, TIMEOUT_S, CollectorRegistry(), **options)


def totals(log: EventLog) -> dict[tuple[int, bytes], int]:
    """Return the recorded lists by arm and user."""
    counts = log.list_counts(toy_experiment().experiment_id)
    return {(count.arm, count.user_digest): count.lists for count in counts}


def test_the_counts_of_several_processes_are_added(feedback_url: str) -> None:
    """Each process writes its own totals, and repeating a write changes nothing."""
    experiment = toy_experiment()
    with EventLog(feedback_url, TIMEOUT_S) as log:
        first, second = counter_of(log), counter_of(log)
        for _ in range(3):
            first.count(experiment, 0, "a")
            second.count(experiment, 0, "a")
        second.count(experiment, 1, "b")
        assert (first.pending, second.pending) == (3, 4)
        for _ in range(2):
            first._flush()
            second._flush()
        assert (first.pending, second.pending) == (0, 0)
        expected = {(0, user_digest("a")): 6, (1, user_digest("b")): 1}
        assert totals(log) == expected
        first.count(experiment, 0, "a")
        assert totals(log) == expected
        first._flush(close=True)
        assert totals(log)[0, user_digest("a")] == 7
        counters = log.list_counters(experiment.experiment_id)
        assert sorted(counter.is_closed for counter in counters) == [False, True]


def test_a_write_with_unknown_outcome_is_not_counted_twice(feedback_url: str) -> None:
    """The connection may be lost after the commit, so the counter writes the same totals again."""
    experiment = toy_experiment()
    with EventLog(feedback_url, TIMEOUT_S) as log:
        fails = [True]

        def write(counter_id: str, counts: Sequence[ListCount], is_closed: bool) -> None:
            log.write_list_counts(counter_id, counts, is_closed)
            if fails.pop():
                fails.append(False)
                raise LogUnavailable("lost while committing")
            fails.append(False)

        counter = ListCounter(write, TIMEOUT_S, CollectorRegistry())
        counter.count(experiment, 0, "a")
        counter._flush()
        assert counter.pending == 1
        counter.count(experiment, 0, "a")
        counter._flush()
        assert counter.pending == 0
        assert totals(log) == {(0, user_digest("a")): 2}


def test_memory_is_bounded_and_uncounted_lists_are_reported() -> None:
    """While the log is away, further users are not counted; afterwards a new counter begins."""
    experiment = toy_experiment()
    written: list[tuple[str, int, bool]] = []
    is_away = True

    def write(counter_id: str, counts: Sequence[ListCount], is_closed: bool) -> None:
        if is_away:
            raise LogUnavailable("away")
        written.append((counter_id, sum(count.lists for count in counts), is_closed))

    counter = ListCounter(write, TIMEOUT_S, CollectorRegistry(), max_counts=10)
    for number in range(12):
        counter.count(experiment, 0, f"u{number}")
    counter.count(experiment, 0, "u0")
    counter._flush()
    assert (counter.pending, counter.uncounted) == (11, 2)
    is_away = False
    counter._flush()
    assert counter.pending == 0
    counter.count(experiment, 0, "u11")
    counter._flush(close=True)
    ids = [counter_id for counter_id, _, _ in written]
    assert written[0] == (ids[0], 11, False)
    assert (ids[0], 0, True) in written
    assert written[-1] == (ids[-1], 1, True)
    assert len(set(ids)) == 2


@pytest.mark.parametrize("where", ["memory", "log"])
def test_a_forgotten_user_leaves_no_counts(feedback_url: str, where: str) -> None:
    """The counts are removed from the log and from the next write of a gateway."""
    experiment = toy_experiment()
    with EventLog(feedback_url, TIMEOUT_S) as log:
        counter = counter_of(log)
        for user in ("a", "b"):
            counter.count(experiment, 0, user)
        if where == "log":
            counter._flush()
        log.forget("a", "test")
        counter.forget(user_digest("a"))
        counter._flush()
        counter.count(experiment, 0, "b")
        counter._flush()
        assert totals(log) == {(0, user_digest("b")): 2}


def test_gateways_that_ended_without_a_final_write_are_reported(
    feedback_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A gateway that closed its counter, or wrote recently, has lost nothing."""
    experiment = toy_experiment()
    with EventLog(feedback_url, TIMEOUT_S) as log:
        killed, stopped = counter_of(log), counter_of(log)
        for counter in (killed, stopped):
            counter.count(experiment, 0, "a")
        killed._flush()
        stopped._flush(close=True)
        assert read_outcome(experiment, log).lost_counters == 0
        monkeypatch.setattr(outcome, "SILENT_S", -1.0)
        assert read_outcome(experiment, log).lost_counters == 1


def test_a_running_counter_reports_that_it_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even without new lists it writes more often than the time after which it counts as lost."""
    assert 2 * list_counts.HEARTBEAT_S < outcome.SILENT_S
    writes: list[int] = []
    counter = ListCounter(
        lambda _, counts, __: writes.append(len(counts)), TIMEOUT_S, CollectorRegistry()
    )
    counter._flush()
    assert not writes, "a counter that has not counted anything must not write"
    counter.count(toy_experiment(), 0, "a")
    counter._flush()
    counter._flush()
    assert writes == [1]
    monkeypatch.setattr(list_counts, "HEARTBEAT_S", 0.0)
    counter._flush()
    assert writes == [1, 0]
