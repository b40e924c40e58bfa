"""Selects the release and blend that answer a request: in an experiment, those of the user's arm.

A user's request is answered by the user's arm unless it names a release or a model. Requests
without a user id are answered by the control, and do not count towards the experiment's outcome. If
an arm's release is not loaded everywhere, the control answers in its place. If the control's
release is not loaded everywhere either, the release in service answers.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

import structlog
from prometheus_client import CollectorRegistry, Counter

from marquee_core.experiments.experiment import CONTROL, Experiment
from marquee_core.experiments.recommendation_id import parse_recommendation_id
from marquee_services.errors import ModelNotFound, PageTokenExpired, ReleaseNotFound
from marquee_services.gateway.backends.interface import AnyBackend
from marquee_services.gateway.caching.page_token import PageToken
from marquee_services.gateway.experiments.route import ArmState, Route, with_ranking
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.gateway.releases.serving import Releases
from marquee_services.server.releases.follower import ReleaseFollower

_log = structlog.get_logger()


class Routing:
    """Routes requests to the arms of the running experiment, or to the release in service.

    Attributes:
        experiment: The running experiment; None if there is none.
        arms: The state of its arms, in their order.
        is_settled: Whether the experiments have been read, and this gateway has loaded or refused
            the release of each arm. A gateway waits for this before it serves, so that users keep
            their arms when it is restarted.
    """

    def __init__(
        self,
        releases: Releases,
        follower: ReleaseFollower[GatewayRelease],
        backends: Iterable[AnyBackend],
        registry: CollectorRegistry,
        count_list: Callable[[Experiment, int, str], None] | None,
    ) -> None:
        """Creates a routing without an experiment; `update` detects one.

        Args:
            releases: The loaded releases.
            follower: Reads the experiments, and keeps their releases loaded.
            backends: The backends that must have loaded a release before an arm can use it.
            registry: Receives the metrics of experiments.
            count_list: Counts a list for the outcome of an experiment, given the experiment, the
                index of the arm and the user's id; None if there is no feedback log.
        """
        self._releases = releases
        self._follower = follower
        self._backends = tuple(backends)
        self._count_list = count_list
        self._blended: dict[tuple[str, int], GatewayRelease] = {}
        self._default: Route | None = None
        self._control_route: Route | None = None
        self.experiment: Experiment | None = None
        self.arms: tuple[ArmState, ...] = ()
        self.is_settled = False
        self._lists = Counter(
            "marquee_experiment_lists_total",
            "Number of lists served by the arm of an experiment.",
            ("experiment", "arm"),
            registry=registry,
        )
        self._fallbacks = Counter(
            "marquee_experiment_fallbacks_total",
            "Number of requests of an arm that were not answered by it, because its release "
            "cannot be used.",
            ("experiment", "arm"),
            registry=registry,
        )

    def update(self) -> None:
        """Detects that experiments start or end and that arms become ready. Called often."""
        was_read = self._follower.experiments.was_read
        experiment = self._follower.experiments.running
        if experiment is None or experiment != self.experiment:
            self._blended.clear()
        before = {state.arm.name: state.reason for state in self.arms}
        arms: tuple[ArmState, ...] = ()
        if experiment is not None:
            arms = tuple(self._state(experiment, index) for index in range(len(experiment.arms)))
            for state in arms:
                if state.reason != before.get(state.arm.name, ""):
                    _log.info(
                        "arm_not_ready" if state.reason else "arm_ready",
                        experiment=experiment.name,
                        arm=state.arm.name,
                        why=state.reason,
                    )
            control = next(state.route for state in arms if state.arm.name == CONTROL)
            self._control_route = control and dataclasses.replace(control, is_counted=False)
        self.experiment, self.arms = experiment, arms
        self.is_settled = was_read and not any(state.is_loading for state in arms)

    def route(self, subject_id: str, release_id: str = "", model: str = "") -> Route:
        """Returns the route of a request.

        Args:
            subject_id: The user's id; "" for a visitor.
            release_id: The release in the request; "" if it names none.
            model: The model in the request; "" if it names none.

        Raises:
            ReleaseNotFound: The release in the request is not loaded.
            NoRelease: No release is in service yet.
        """
        experiment = self.experiment
        if experiment is None or release_id or model:
            return self._default_route(self._releases.pick(release_id))
        if not subject_id:
            return self._control()
        state = self.arms[experiment.assign(subject_id)]
        if state.route is not None:
            return state.route
        self._fallbacks.labels(experiment.name, state.arm.name).inc()
        return self._control()

    def of_page_token(self, token: PageToken, user_id: str) -> Route:
        """Returns the route of a further page, which is that of the first page.

        Raises:
            PageTokenExpired: The release is no longer loaded, or the arm had its own blend and the
                experiment has ended.
        """
        origin = parse_recommendation_id(token.list_id)
        for experiment in self._follower.experiments.all if origin is not None else ():
            if origin is None or not origin.belongs_to(experiment, user_id):
                continue
            if experiment.arms[origin.arm].release_id != token.release_id:
                break
            if self.experiment is not None and experiment.name == self.experiment.name:
                route = self.arms[origin.arm].route
                if route is not None:
                    return route
            if experiment.arms[origin.arm].ranking_weights:
                raise PageTokenExpired(token.release_id)
        return self._default_route(self._releases.of_page_token(token.release_id))

    def record_list(self, route: Route, user_id: str) -> None:
        """Counts a list when its first page is answered."""
        if route.experiment is None:
            return
        self._lists.labels(route.experiment_name, route.arm_name).inc()
        if route.is_counted and self._count_list is not None:
            self._count_list(route.experiment, route.arm, user_id)

    def _default_route(self, release: GatewayRelease) -> Route:
        """Returns the route of a request outside the experiment."""
        if self._default is None or self._default.release is not release:
            self._default = Route(release)
        return self._default

    def _control(self) -> Route:
        """Returns the route of the control, uncounted; or of the release in service without it."""
        return self._control_route or self._default_route(self._releases.serving)

    def _state(self, experiment: Experiment, index: int) -> ArmState:
        arm = experiment.arms[index]
        try:
            release = self._release(experiment, index)
        except ReleaseNotFound:
            why = self._follower.refused.get(arm.release_id)
            if why:
                return ArmState(arm, None, f"the gateway refused {arm.release_id}: {why}")
            return ArmState(arm, None, f"{arm.release_id} is being loaded", is_loading=True)
        except ModelNotFound as error:
            return ArmState(arm, None, str(error))
        for backend in self._backends:
            if backend.name not in release.backends or not backend.healthy:
                continue
            if arm.release_id in backend.refused:
                why = backend.refused[arm.release_id]
                return ArmState(arm, None, f"{backend.name} refused {arm.release_id}: {why}")
            if backend.failure(arm.release_id) is not None:
                return ArmState(arm, None, f"{backend.name} has not loaded {arm.release_id} yet")
        if not self._releases.has_feedback_for(release.manifest):
            why = f"the feedback since the training of {arm.release_id} is being read"
            return ArmState(arm, None, why)
        old = self.arms[index].route if experiment == self.experiment else None
        if old is not None and old.release is release:
            return ArmState(arm, old, "")
        return ArmState(arm, Route(release, experiment, index, is_counted=True), "")

    def _release(self, experiment: Experiment, index: int) -> GatewayRelease:
        """Returns the release of an arm, with the arm's blend.

        Raises:
            ReleaseNotFound: The release is not loaded.
            ModelNotFound: The release lacks a model of the arm's blend.
        """
        arm = experiment.arms[index]
        loaded = self._follower.get(arm.release_id)
        if not arm.ranking_weights:
            return loaded
        key = experiment.name, index
        blended = self._blended.get(key)
        if blended is None or blended.manifest is not loaded.manifest:
            blended = self._blended[key] = with_ranking(loaded, arm.ranking_weights)
        return blended
