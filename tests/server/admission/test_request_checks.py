"""Callers whose large requests are refused again and again do not keep the event loop busy."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from marquee_services.errors import FieldViolation, InvalidFields
from marquee_services.server.admission import request_limits
from marquee_services.server.admission.request_limits import RequestChecks, RequestLimits

CHECK_S = 0.01


@dataclass(frozen=True)
class SlowLimits(RequestLimits):
    """Limits whose check takes a while, and refuses requests that say so."""

    times: list[tuple[float, float]] = field(default_factory=list)

    async def check(self, data: bytes) -> None:
        """Refuse a request of `refused`, and record when the check began and ended."""
        loop = asyncio.get_running_loop()
        start = loop.time()
        while loop.time() < start + CHECK_S:
            await asyncio.sleep(0)
        self.times.append((start, loop.time()))
        if data == b"refused":
            raise InvalidFields([FieldViolation("", "too many")])


async def test_the_check_after_a_refusal_waits_several_times_as_long_as_that_took() -> None:
    """Requests of eight callers are checked one after another, with a pause after each."""
    checks, limits = RequestChecks(), SlowLimits()
    results = await asyncio.gather(
        *(checks.check(limits, b"refused") for _ in range(8)), return_exceptions=True
    )
    assert [type(result) for result in results] == [InvalidFields] * 8
    for (start, end), (next_start, _) in zip(limits.times, limits.times[1:], strict=False):
        pause = min(request_limits._MAX_PAUSE_S, request_limits._PAUSE_PER_CHECK * (end - start))
        assert pause >= 4 * CHECK_S  # less than the longest pause
        assert next_start - end >= pause - 1e-3  # the resolution of uvloop's timers


async def test_requests_within_the_limits_do_not_wait_for_each_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only a refusal is followed by a pause, which a request within the limits shares."""
    pauses, sleep, own = list[float](), asyncio.sleep, asyncio.current_task()

    async def record(seconds: float) -> None:
        # Servers of other tests may still be running in other threads.
        if seconds > 0 and asyncio.current_task() is own:
            pauses.append(seconds)
        await sleep(max(0.0, seconds))

    monkeypatch.setattr(asyncio, "sleep", record)
    checks, limits = RequestChecks(), SlowLimits()
    for data in (b"good", b"good", b"good"):
        await checks.check(limits, data)
    assert not pauses
    with pytest.raises(InvalidFields):
        await checks.check(limits, b"refused")
    await checks.check(limits, b"good")
    assert len(pauses) == 1
