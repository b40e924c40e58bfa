"""Reports whether the promotion gate keeps the newest release from production.

The gate runs where releases are trained. Without this report by the gateways, it could go unnoticed
for days that new releases are not served.
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
from marquee_core.release.verdicts import latest_verdict
from marquee_services.server.background import BackgroundThread
from marquee_services.server.telemetry.metrics import gauge

_log = structlog.get_logger()
_INTERVAL_S = 30.0
_NONE = "none"


class GateWatch:
    """Reads the gate's latest verdict on the newest release.

    Attributes:
        release_id: The newest release; "" if there is none, or before the first read.
        decision: The gate's decision on it; `none` if there is no verdict.
        is_held_back: Whether the gate has kept it from being promoted.
    """

    def __init__(self, store: ReleaseStore) -> None:
        """Creates a watch of a store, without reading from it."""
        self._store = store
        self._thread = BackgroundThread("gate-watch")
        self._error = ""
        self.release_id = self.decision = ""
        self.is_held_back = False

    async def follow(self) -> None:
        """Reads periodically, until cancelled. After an error, the previous values stay."""
        while True:
            error = ""
            try:
                await self._thread.run(self.read)
            except (ArtifactError, OSError) as raised:
                error = redact(str(raised))
                if error != self._error:
                    _log.warning("verdict_of_newest_release_unreadable", why=error)
            self._error = error
            await asyncio.sleep(_INTERVAL_S)

    def read(self) -> None:
        """Reads the verdict on the newest release.

        Raises:
            ArtifactError: The release's manifest or verdicts, or the production pointer, are
                damaged.
            OSError: The store cannot be read.
        """
        release_ids = self._store.ids()
        if not release_ids:
            return
        newest = release_ids[-1]  # The ids are sorted by time.
        verdict = latest_verdict(self._store.storage, self._store.manifest(newest))
        production = self._store.production()
        promoted = () if production is None else (production.release_id, *production.history)
        self.is_held_back = (
            verdict is not None
            and verdict.decision is not Decision.PROMOTE
            and newest not in promoted
        )
        self.release_id = newest
        self.decision = _NONE if verdict is None else verdict.decision.value

    def metrics(self) -> Iterator[Metric]:
        """Yields the metric of the verdict."""
        if self.release_id:
            yield gauge(
                "marquee_release_held_back",
                "1 if the gate keeps the newest release from production, else 0.",
                {(self.release_id, self.decision): float(self.is_held_back)},
                ("release_id", "decision"),
            )
