"""Answers GetStatus: the release in service, its models, and the state of the backends."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from importlib.metadata import version

import numpy as np

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_core.release.verdict import Check, Decision, Verdict
from marquee_services.errors import NoRelease
from marquee_services.gateway.answering.messages import model_weights
from marquee_services.gateway.backends.interface import AnyBackend
from marquee_services.gateway.experiments.list_counts import ListCounter
from marquee_services.gateway.experiments.routing import Routing
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.gateway.releases.serving import Releases
from marquee_services.server.identity.access import Scope, has_scope
from marquee_services.server.releases.follower import ReleaseFollower

_WITHHELD = "only shown to callers with the scope admin"


class StatusReporter:
    """Reports the gateway's state."""

    def __init__(
        self,
        releases: Releases,
        backends: Iterable[AnyBackend],
        feedback: Callable[[], pb.FeedbackStatus | None],
        experiment: Callable[[], pb.ExperimentStatus | None],
        shows_addresses_to_all: bool,
    ) -> None:
        """Creates a reporter.

        Args:
            releases: The releases.
            backends: The backends.
            feedback: Returns the state of the feedback log; None if the gateway has none.
            experiment: Returns the state of the running experiment; None if there is none.
            shows_addresses_to_all: Whether callers without the scope `admin` may see addresses.
        """
        self._releases = releases
        self._backends = tuple(backends)
        self._feedback = feedback
        self._experiment = experiment
        self._shows_addresses_to_all = shows_addresses_to_all

    def status(self) -> pb.GetStatusResponse:
        """Returns the current state; without a release in service, `release` is not set.

        Backends that no loaded release uses are left out. Addresses, and errors that may contain
        addresses, are shown only to administrators.
        """
        shows_addresses = self._shows_addresses_to_all or has_scope(Scope.ADMIN)
        feedback = self._feedback()
        experiment = self._experiment()
        for state in (feedback, experiment):
            if state is not None:
                state.last_error = _shown(state.last_error, shows_addresses)
        loaded = self._releases.loaded
        used = frozenset[str]().union(*(held.backends for held in loaded))
        try:
            release = _release_status(
                self._releases.serving, self._releases.verdict, shows_addresses
            )
        except NoRelease:
            release = None
        return pb.GetStatusResponse(
            release=release,
            loaded_release_ids=[held.release_id for held in loaded],
            backends=[
                pb.BackendStatus(
                    backend=backend.name,
                    target=backend.target if shows_addresses else "",
                    healthy=backend.healthy,
                    loaded_release_ids=backend.releases,
                    last_error=_shown(backend.last_error.text, shows_addresses),
                    last_error_at=backend.last_error.at,
                )
                for backend in self._backends
                if not loaded or backend.name in used
            ],
            server_version=version("marquee-recommender"),
            pending_release_reason=self._releases.pending_reason,
            store_error=_shown(self._releases.store_error, shows_addresses),
            feedback=feedback,
            experiment=experiment,
        )


def _shown(error: str, shows_addresses: bool) -> str:
    """Returns the error text that a caller may see; "" if there is no error."""
    return error if shows_addresses or not error else _WITHHELD


def experiment_status(
    routing: Routing, follower: ReleaseFollower[GatewayRelease], counter: ListCounter | None
) -> pb.ExperimentStatus | None:
    """Returns the state of the running experiment.

    Args:
        routing: Routes requests to the arms of the experiment.
        follower: Reads the experiments from the store.
        counter: Counts the lists; None if the gateway has no feedback log.

    Returns:
        The state; None if there is neither a running experiment nor an error.
    """
    experiment, error = routing.experiment, follower.experiments.error
    if experiment is None:
        return pb.ExperimentStatus(last_error=error) if error else None
    return pb.ExperimentStatus(
        experiment=experiment.name,
        started_at=experiment.started_at,
        arms=[
            pb.ExperimentStatus.Arm(
                arm=state.arm.name,
                release_id=state.arm.release_id,
                percent=state.arm.percent,
                ranking_weights=state.arm.ranking_weights,
                unavailable_reason=state.reason,
            )
            for state in routing.arms
        ],
        pending_list_count=0 if counter is None else counter.pending,
        uncounted_list_count=0 if counter is None else counter.uncounted,
        last_error=error,
    )


def _release_status(
    release: GatewayRelease, verdict: Verdict | None, shows_addresses: bool
) -> pb.ReleaseStatus:
    """Returns the status of a release: its data, models, metrics and the gate's verdict."""
    manifest = release.manifest
    measured = manifest.evaluation
    blends = release.ensemble.blends(sorted(release.backends))
    weights = {weight.model: weight for weight in model_weights(release, blends)}
    return pb.ReleaseStatus(
        release_id=release.release_id,
        published_at=manifest.published_at,
        data_source=manifest.data.source,
        data_fingerprint=manifest.data.fingerprint,
        user_count=manifest.data.user_count,
        item_count=manifest.data.item_count,
        rating_count=manifest.data.rating_count,
        models=[
            pb.ModelStatus(
                weight=weights.get(
                    model.name, types_pb2.ModelWeight(model=model.name, version=model.version)
                ),
                backend=model.backend,
                metrics=_finite(model.metrics),
            )
            for model in manifest.models
        ],
        ensemble_metrics=_finite(measured.get("ensemble_metrics", {})),
        evaluation=pb.ReleaseStatus.Evaluation(
            split=measured.get("split", ""),
            seed=measured.get("seed", 0),
            training_ratings=measured.get("training_ratings", 0),
            test_ratings=measured.get("test_ratings", 0),
            training_fingerprint=measured.get("training_fingerprint", ""),
        ),
        refitted=manifest.data.refitted,
        implicit_feedback=not release.predicts_stars,
        genres=release.catalogue.genres,
        gate=None if verdict is None else _gate_verdict(verdict, shows_addresses),
    )


def _gate_verdict(verdict: Verdict, shows_addresses: bool) -> pb.GateVerdict:
    def text(check: Check) -> str:
        # The text of a failed check may contain addresses.
        return _shown(check.text, shows_addresses or check.decision is Decision.PROMOTE)

    return pb.GateVerdict(
        decision=verdict.decision.value,
        compared_release_id=verdict.production_id,
        judged_at=verdict.at,
        checks=[
            pb.GateVerdict.Check(
                name=check.name,
                decision=check.decision.value,
                text=text(check),
                figures=check.figures,
            )
            for check in verdict.checks
        ],
    )


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Returns the metrics that are finite numbers."""
    return {name: value for name, value in metrics.items() if np.isfinite(value)}
