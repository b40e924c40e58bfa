"""Watches whether the promotion gate keeps the newest release from production.

The gate runs where releases are trained, and ends there. Without a word of it from the gateways,
nobody would notice for days that what is trained is not served.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import structlog
from prometheus_client.metrics_core import Metric

from marquee_core.errors import ArtifactError
from marquee_core.redaction import redact
from marquee_core.release.store import ReleaseStore
from marquee_core.release.verdict import Decision
from marquee_core.release.verdicts import judged_releases, recorded_verdicts
from marquee_services.server.background import BackgroundThread
from marquee_services.server.metrics import gauge

_log = structlog.get_logger()
_INTERVAL_S = 30.0


class GateWatch:
    """Reads what the gate said last about the newest release that it has judged.

    Attributes:
        release_id: That release; "" if the gate has judged none.
        decision: What the gate said about it; "" if it has judged none.
        is_held_back: Whether it was neither allowed nor promoted all the same.
    """

    def __init__(self, store: ReleaseStore) -> None:
        """Takes the store; nothing is read yet."""
        self._store = store
        self._thread = BackgroundThread("gate-watch")
        self.release_id = self.decision = ""
        self.is_held_back = False

    async def follow(self) -> None:
        """Reads from time to time, until cancelled. An error leaves what was read before."""
        while True:
            try:
                await self._thread.run(self.read)
            except (ArtifactError, OSError) as error:
                _log.warning("verdicts_unreadable", why=redact(str(error)))
            await asyncio.sleep(_INTERVAL_S)

    def read(self) -> None:
        """Reads the verdicts.

        Raises:
            ArtifactError: The file of verdicts, or that of the release in production, is damaged.
            OSError: The store cannot be read.
        """
        # Ids sort by time.
        release_id = max(judged_releases(self._store.storage), default="")
        verdicts = recorded_verdicts(self._store.storage, release_id) if release_id else []
        if not verdicts:
            return
        production = self._store.production()
        promoted = () if production is None else (production.release_id, *production.history)
        decision = verdicts[-1].decision
        self.is_held_back = decision is not Decision.PROMOTE and release_id not in promoted
        self.release_id, self.decision = release_id, decision.value

    def metrics(self) -> Iterator[Metric]:
        """What was read, as a metric."""
        if self.release_id:
            yield gauge(
                "marquee_release_held_back",
                "1 if the gate keeps the newest release that it has judged back, else 0.",
                {(self.release_id, self.decision): float(self.is_held_back)},
                ("release_id", "decision"),
            )
