"""Metrics of a server's releases and certificates, computed when they are scraped."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from prometheus_client.metrics_core import Metric

from marquee_services.server.identity.certificates import Certificates
from marquee_services.server.releases.follower import ReleaseFollower
from marquee_services.server.telemetry.metrics import counter, gauge

_MAX_REASON = 120


def release_metrics(
    followers: Sequence[ReleaseFollower[Any]],
    serving_publication: Callable[[], tuple[str, str] | None],
) -> Callable[[], Iterable[Metric]]:
    """Returns a function that computes the metrics of the releases that a server follows.

    A release is wanted if it is promoted according to the first follower, loaded if all followers
    hold it, and refused if one of them refuses it. Refused releases are reported only while they
    are promoted or part of an experiment.

    Args:
        followers: The followers that load the releases, one for each part of the server.
        serving_publication: Returns the release in service and the RFC 3339 time at which it was
            published; None if there is none.
    """

    def read() -> Iterable[Metric]:
        promoted_id = followers[0].promoted_id
        wanted = {(promoted_id,): 1.0} if promoted_id else {}
        held = [{release.release_id for release in each.releases} for each in followers]
        loaded = {(release_id,): 1.0 for release_id in set.intersection(*held)}
        reasons = ChainMap(*(dict(each.refused) for each in followers))
        # A refused release no longer matters once another release is promoted.
        relevant = {promoted_id}.union(*(each.experiments.release_ids for each in followers))
        refused = {
            (name, why[:_MAX_REASON]): 1.0 for name, why in reasons.items() if name in relevant
        }
        by_id = ("release_id",)
        yield gauge("marquee_release_wanted", "1 for the promoted release.", wanted, by_id)
        yield gauge("marquee_release_loaded", "1 for each release in memory.", loaded, by_id)
        yield gauge(
            "marquee_release_refused",
            "1 for a promoted release, or one of an experiment, that could not be loaded, and why.",
            refused,
            ("release_id", "reason"),
        )
        yield counter(
            "marquee_releases_refused",
            "Number of times that a release was refused.",
            {(): float(sum(each.refusals for each in followers))},
        )
        yield counter(
            "marquee_release_copies_damaged",
            "Number of damaged files found among the server's copies of releases.",
            {(): float(sum(each.damaged_copies for each in followers))},
        )
        yield counter(
            "marquee_store_errors",
            "Number of failed polls of the release store.",
            {(): float(sum(each.failed_polls for each in followers))},
        )
        yield gauge(
            "marquee_store_last_poll_timestamp_seconds",
            "When the release store was last polled successfully.",
            {(): min(each.last_poll for each in followers)},
        )
        found = serving_publication()
        if found is not None:
            release_id, text = found
            yield gauge(
                "marquee_release_published_timestamp_seconds",
                "When the release in service was published.",
                {(release_id,): datetime.fromisoformat(text).timestamp()},
                by_id,
            )

    return read


def certificate_metrics(certificates: Sequence[Certificates]) -> Callable[[], Iterable[Metric]]:
    """Returns a function that computes the expiry times of the certificates in use."""

    def read() -> Iterable[Metric]:
        expiries = {
            (each.purpose,): each.current.expires.timestamp()
            for each in certificates
            if each.current.expires is not None
        }
        yield gauge(
            "marquee_certificate_expiry_timestamp_seconds",
            "When the certificate in use expires.",
            expiries,
            ("purpose",),
        )

    return read
