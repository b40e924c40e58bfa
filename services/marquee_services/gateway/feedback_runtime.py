"""Starts and stops the writer and the follower of the feedback log, and reports their state.

Imported only if the gateway has a feedback log, because it requires the extra `feedback`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import ExitStack

from marquee.v1 import recommender_service_pb2 as pb
from marquee_core.feedback.log import EventLog
from marquee_core.release.manifest import Manifest
from marquee_services.gateway.experiments.list_counts import ListCounter
from marquee_services.gateway.feedback.follower import FeedbackFollower
from marquee_services.gateway.feedback.fresh import FreshFeedback
from marquee_services.gateway.feedback.metrics import FeedbackMetrics
from marquee_services.gateway.feedback.writer import FeedbackWriter
from marquee_services.gateway.feedback_servicer import FeedbackServicer
from marquee_services.gateway.releases.serving import Releases
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.server.switch_interval import limit_switch_interval
from marquee_services.server.telemetry.metrics import Metrics

# How long a thread keeps the interpreter's lock while another one waits for it; the default is
# 5 ms. A call takes the lock several times, and may wait this long each time while the threads
# below process a batch of events. Even shorter intervals would cost more CPU time than they save.
_SWITCH_INTERVAL_S = 0.0001


class FeedbackRuntime:
    """The writer and the follower of a gateway's feedback log.

    Attributes:
        servicer: Serves `FeedbackService`.
        list_counter: Counts the lists of users in an experiment.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        releases: Releases,
        fresh: FreshFeedback,
        metrics: Metrics,
    ) -> None:
        """Starts the writer and the follower.

        Args:
            settings: The gateway's settings.
            releases: The releases.
            fresh: Receives the feedback.
            metrics: The gateway's metrics.

        Raises:
            ValueError: The URL of the log cannot be used.
        """
        self._on_stop = ExitStack()
        self._on_stop.enter_context(limit_switch_interval(_SWITCH_INTERVAL_S))
        self._fresh = fresh
        self._log = EventLog(settings.feedback_url, settings.feedback_timeout)
        self._follower = FeedbackFollower(self._log, fresh, settings.feedback_poll_interval)
        self._writer = FeedbackWriter(
            self._log, settings.feedback_timeout, self._follower.queue_written
        )
        self.servicer = FeedbackServicer(
            self._log,
            self._writer,
            releases,
            FeedbackMetrics(metrics.registry, self._follower, fresh),
        )
        self.list_counter = ListCounter(
            self._log.write_list_counts, settings.experiment_count_interval, metrics.registry
        )
        fresh.on_forgotten = self.list_counter.forget
        self._follower.start()
        self._writer.start()
        self.list_counter.start()

    @property
    def ready(self) -> bool:
        """Whether the gateway may serve; see `FeedbackFollower.ready`."""
        return self._follower.ready

    def set_releases(self, manifests: Sequence[Manifest]) -> None:
        """Sets the loaded releases; see `FeedbackFollower.set_releases`."""
        self._follower.set_releases(manifests)

    def has_read_for(self, manifest: Manifest) -> bool:
        """Returns whether the log was read for a release; see `FeedbackFollower.has_read_for`."""
        return self._follower.has_read_for(manifest)

    def status(self) -> pb.FeedbackStatus:
        """Returns the state of the feedback log, for GetStatus."""
        return pb.FeedbackStatus(
            healthy=self._follower.healthy,
            log_position=self._fresh.position,
            lag_seconds=self._follower.lag,
            user_count=len(self._fresh),
            memory_bytes=self._fresh.nbytes,
            evicted_user_count=self._fresh.evicted,
            last_error=self._follower.last_error.text,
            last_error_at=self._follower.last_error.at,
        )

    async def stop(self) -> None:
        """Finishes the queued writes, and stops the threads."""
        self.servicer.close()
        await asyncio.to_thread(self.list_counter.stop)
        await asyncio.to_thread(self._writer.stop)
        await asyncio.to_thread(self._follower.stop)
        self._log.close()
        self._on_stop.close()
