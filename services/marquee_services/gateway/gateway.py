"""A running gateway: its parts, the switch to another release, and its end."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from marquee_core.release.storage import Storage
from marquee_services.gateway.answering.lookups import Lookups
from marquee_services.gateway.backends.interface import AnyBackend
from marquee_services.gateway.batch_budget import BatchBudget
from marquee_services.gateway.experiments.routing import Routing
from marquee_services.gateway.feedback.fresh import FreshFeedback
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.gateway.releases.serving import Releases
from marquee_services.server.admission.adaptive_limit import AdaptiveLimit
from marquee_services.server.releases.follower import ReleaseFollower
from marquee_services.server.runtime import BoundServer
from marquee_services.server.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from marquee_services.gateway.feedback_runtime import FeedbackRuntime


@dataclass
class Gateway:
    """A running gateway.

    Attributes:
        bound: The listening gRPC server.
        follower: Loads the promoted release.
        backends: The CF and the inference service.
        releases: The loaded releases, and the one in service.
        routing: Routes requests to the arms of an experiment.
        metrics: The gateway's metrics.
        fresh: The feedback of users since the releases were trained.
        feedback: Writes and follows the feedback log; None if the gateway has no log.
        batch_budget: The budget that all batches share.
        computing: Admits single calls whose answers must be computed.
        lookups: Answers searches of the catalogue.
    """

    bound: BoundServer
    follower: ReleaseFollower[GatewayRelease]
    backends: Sequence[AnyBackend]
    releases: Releases
    routing: Routing
    metrics: Metrics
    fresh: FreshFeedback
    feedback: FeedbackRuntime | None
    batch_budget: BatchBudget
    computing: AdaptiveLimit
    lookups: Lookups
    _tasks: list[asyncio.Task[None]]

    def run_in_background(self, work: Coroutine[Any, Any, None]) -> None:
        """Runs a coroutine in the background; `stop` cancels it if it has not finished."""
        task = asyncio.create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)

    async def stop(self, grace: float) -> None:
        """Refuses new calls, waits for calls in progress, and stops the background tasks.

        Args:
            grace: Seconds that calls in progress have to finish; see `BoundServer.stop`.
        """
        self.batch_budget.is_draining = True
        self.computing.drain()
        await self.bound.stop(grace)
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task
        for backend in self.backends:
            await backend.close()
        if self.feedback is not None:
            await self.feedback.stop()
        self.lookups.close()

    async def update_release_in_service(self, storage: Storage, interval: float) -> None:
        """Puts releases in service as soon as they and the backends are ready, until cancelled.

        The health status becomes SERVING once a release is in service, the feedback log has been
        read and the releases of an experiment are loaded.

        Args:
            storage: The files of the store, which hold the gate's verdicts.
            interval: Seconds between checks.
        """
        is_serving = has_release = False
        while True:
            if self.feedback is not None:
                self.feedback.set_releases([release.manifest for release in self.releases.held])
            release = self.releases.update()
            self.routing.update()
            if release is not None:
                for backend in self.backends:
                    backend.keep_loaded(release.release_id)
                self.metrics.set_release(release.release_id)
                self.run_in_background(self.releases.read_verdict(storage))
                self.computing.forget()
                has_release = True
            is_ready = self.routing.is_settled and (self.feedback is None or self.feedback.ready)
            if not is_serving and has_release and is_ready:
                await self.bound.set_serving(True)
                is_serving = True
            await asyncio.sleep(interval)
