"""Selects the replica of a call, hedges late calls, and records calls for circuit breakers."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import structlog

from marquee_services.gateway.backends.failures import BackendError, Failure
from marquee_services.gateway.backends.interface import AnyReplica
from marquee_services.gateway.backends.latency import HedgeBudget, PeakLatency, hedge_after
from marquee_services.gateway.backends.monitor import BackendMonitor
from marquee_services.gateway.backends.replica import Replica
from marquee_services.server.admission.priority import PRIORITY, Priority

_log = structlog.get_logger()
_T = TypeVar("_T")

# Failures that count against a replica's circuit; a full queue is not the replica's fault.
_BAD_FAILURES = (Failure.UNAVAILABLE, Failure.TIMEOUT)


class HedgedCalls:
    """Calls the replicas of a backend, and sends a late call to a second replica."""

    def __init__(
        self, name: str, replicas: Callable[[], list[Replica]], monitor: BackendMonitor
    ) -> None:
        """Creates the calls of a backend.

        Args:
            name: The backend's name.
            replicas: Returns the healthy replicas.
            monitor: Counts the calls that are sent to a second replica.
        """
        self._name = name
        self._replicas = replicas
        self._monitor = monitor
        self._budget = HedgeBudget()
        self._trials: set[asyncio.Task[None]] = set()

    def best(
        self, tried: set[Replica], release_id: str, preferred: AnyReplica | None = None
    ) -> Replica | None:
        """Returns the healthy replica to call next; None if all have been tried.

        Args:
            tried: The replicas that have been tried.
            release_id: The release of the request; replicas that have loaded it are preferred.
            preferred: The replica to call if it is healthy; None for no preference.
        """
        untried = [r for r in self._replicas() if r not in tried] if tried else self._replicas()
        if len(untried) < 2:
            return untried[0] if untried else None
        now = asyncio.get_running_loop().time()
        # A replica with an open circuit is better than none. Among equally good replicas, the least
        # recently called one is selected.
        return min(
            untried,
            key=lambda r: (
                release_id not in r.releases,
                r.circuit.is_open,
                r is not preferred,
                (r.calls_in_flight + 1) * r.latency.magnitude(now),
                r.calls_in_flight,
                r.last_called_at,
            ),
        )

    def begin(
        self, release_id: str, call: Callable[[Replica, float], Awaitable[_T]], due: float
    ) -> Replica | None:
        """Adds a call to the budget, and sends it on trial to replicas that are due for one.

        Args:
            release_id: The release of the request.
            call: Calls the given replica with the given number of seconds as the timeout.
            due: The deadline of the call, in seconds of the event loop's clock.

        Returns:
            The only healthy replica; None if there are several or none.
        """
        self._budget.add_call()
        replicas = self._replicas()
        if len(replicas) < 2:
            return replicas[0] if replicas else None
        if PRIORITY.get() is not Priority.INTERACTIVE:
            return None
        for replica in replicas:
            if replica.circuit.is_open and release_id in replica.releases:
                now = asyncio.get_running_loop().time()
                others = [r.latency.value(now) for r in replicas if not r.circuit.is_open]
                if others and replica.circuit.begin_trial(now):
                    self._monitor.hedged(self._name, "trial")
                    trial = asyncio.create_task(
                        self._run_trial(replica, call, due, hedge_after(others))
                    )
                    self._trials.add(trial)
                    trial.add_done_callback(self._trials.discard)
        return None

    def call(
        self,
        replica: Replica,
        tried: set[Replica],
        release_id: str,
        call: Callable[[Replica, float], Awaitable[_T]],
        due: float,
    ) -> Coroutine[Any, Any, _T]:
        """Calls a replica, and also another one if the first takes much longer than usual.

        Args:
            replica: The replica to call first.
            tried: The replicas that have been tried; the other one is added.
            release_id: The release of the request.
            call: Calls the given replica with the given number of seconds as the timeout.
            due: The deadline of the call, in seconds of the event loop's clock.

        Raises:
            BackendError: Every replica that was called failed.
        """
        other = self.best(tried, release_id)
        if other is None or release_id not in other.releases or other.circuit.is_open:
            return self.attempt(replica, call, due)
        return self._call_both(replica, other, tried, release_id, call, due)

    async def _call_both(
        self,
        replica: Replica,
        other: Replica,
        tried: set[Replica],
        release_id: str,
        call: Callable[[Replica, float], Awaitable[_T]],
        due: float,
    ) -> _T:
        """Calls a replica, and the other one if the first takes much longer than usual."""
        now = asyncio.get_running_loop().time()
        late_s = hedge_after([replica.latency.value(now), other.latency.value(now)])
        attempts = {asyncio.create_task(self.attempt(replica, call, due, late_s))}
        done: set[asyncio.Task[_T]] = set()
        try:
            done, _ = await asyncio.wait(attempts, timeout=late_s)
            if not done:
                self._record_bad(replica)
            while not done and not self._may_hedge(replica):
                done, _ = await asyncio.wait(attempts, timeout=late_s)
            if not done:
                other = self.best(tried, release_id) or other
                tried.add(other)
                attempts.add(asyncio.create_task(self.attempt(other, call, due, late_s)))
            while True:
                done, pending = await asyncio.wait(attempts, return_when=asyncio.FIRST_COMPLETED)
                answered = [attempt for attempt in done if attempt.exception() is None]
                if answered or not pending:
                    return (answered or list(done))[0].result()
                attempts = pending  # One attempt failed; wait for the other one.
        finally:
            for attempt in attempts:
                attempt.cancel()
            # Otherwise an attempt, its error and this frame would keep one another in memory.
            attempts.clear()
            done.clear()

    def close(self) -> None:
        """Cancels the trials in progress."""
        for trial in self._trials:
            trial.cancel()

    def _may_hedge(self, replica: Replica) -> bool:
        """Returns whether a late call may also be sent to a second replica.

        Calls that wait for a replica with an open circuit need no budget: there are only the calls
        that were in flight when its circuit opened.
        """
        if replica.circuit.is_open:
            self._monitor.hedged(self._name, "moved")
            return True
        if PRIORITY.get() is not Priority.INTERACTIVE or not self._budget.take():
            return False
        self._monitor.hedged(self._name, "late")
        return True

    async def attempt(
        self,
        replica: Replica,
        call: Callable[[Replica, float], Awaitable[_T]],
        due: float,
        late_s: float = math.inf,
    ) -> _T:
        """Calls a replica, and records the latency and the outcome.

        Args:
            replica: The replica.
            call: Calls the given replica with the given number of seconds as the timeout.
            due: The deadline of the call, in seconds of the event loop's clock.
            late_s: A call that takes longer has already been recorded as late.

        Raises:
            BackendError: The replica failed.
        """
        loop = asyncio.get_running_loop()
        start = loop.time()
        is_measured = PRIORITY.get() is Priority.INTERACTIVE
        replica.calls_in_flight += 1
        replica.last_called_at = start
        try:
            answer = await call(replica, due - start)
        except BackendError as error:
            if error.reason.failure in _BAD_FAILURES:
                self._record_bad(replica)
            raise
        except asyncio.CancelledError:
            # The call would have taken longer, so it must not lower the average.
            now = loop.time()
            is_measured = is_measured and now - start >= replica.latency.value(now)
            raise
        else:
            if is_measured and not replica.circuit.is_open:
                now = loop.time()
                if now - start <= late_s:
                    replica.circuit.record(is_bad=False, now=now)
            return answer
        finally:
            replica.calls_in_flight -= 1
            if is_measured:
                now = loop.time()
                replica.latency.observe(now - start, now)

    def _record_bad(self, replica: Replica) -> None:
        """Records a late or failed call, and opens the circuit if the replica is an outlier."""
        if PRIORITY.get() is not Priority.INTERACTIVE or replica.circuit.is_open:
            return
        now = asyncio.get_running_loop().time()
        replica.circuit.record(is_bad=True, now=now)
        if not replica.circuit.fails_often(now):
            return
        if any(r.circuit.is_healthy(now) for r in self._replicas() if r is not replica):
            replica.circuit.open(now)
            _log.warning("replica_circuit_opened", backend=self._name, address=replica.address)

    async def _run_trial(
        self,
        replica: Replica,
        call: Callable[[Replica, float], Awaitable[_T]],
        due: float,
        late_s: float,
    ) -> None:
        """Tests a replica with a duplicate of a call, whose answer is not used."""
        loop = asyncio.get_running_loop()
        is_good = False
        try:
            async with asyncio.timeout(late_s):
                await call(replica, due - loop.time())
            is_good = True
        except (BackendError, TimeoutError):
            pass
        finally:
            replica.circuit.end_trial(is_good, loop.time())
        if not replica.circuit.is_open:
            replica.latency = PeakLatency()
            _log.info("replica_circuit_closed", backend=self._name, address=replica.address)
