"""The route of a request: the release that answers it and, in an experiment, the arm."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from marquee_core.experiments.experiment import Arm, Experiment
from marquee_core.experiments.recommendation_id import new_recommendation_id
from marquee_core.release import derive
from marquee_services.gateway.caching.page_token import new_list_id
from marquee_services.gateway.releases.precomputed import PrecomputedPages
from marquee_services.gateway.releases.release import GatewayRelease


@dataclass(frozen=True)
class Route:
    """The release and the arm that answer a request.

    Attributes:
        release: The release; for an arm with its own blend, the release with that blend.
        experiment: The experiment in which the request takes part; None if there is none.
        arm: The index of the arm in the experiment.
        is_counted: Whether lists count towards the outcome of the experiment.
    """

    release: GatewayRelease
    experiment: Experiment | None = None
    arm: int = 0
    is_counted: bool = False

    @cached_property
    def cache_key(self) -> str:
        """The cache key of this route's answers: the release, and the arm if there is one."""
        release_id = self.release.release_id
        if self.experiment is None:
            return release_id
        return f"{release_id}/{self.experiment.experiment_id}/{self.arm}"

    @property
    def experiment_name(self) -> str:
        """The name of the experiment; "" if there is none."""
        return "" if self.experiment is None else self.experiment.name

    @property
    def arm_name(self) -> str:
        """The name of the arm; "" if there is none."""
        return "" if self.experiment is None else self.experiment.arms[self.arm].name

    def new_list_id(self, user_id: str) -> str:
        """Returns the id of a new list; in an experiment it encodes the arm."""
        if self.experiment is None or not self.is_counted:
            return new_list_id()
        return new_recommendation_id(self.experiment, self.arm, user_id)


@dataclass(frozen=True)
class ArmState:
    """The state of an arm in this gateway.

    Attributes:
        arm: The arm.
        route: The route of the arm's users; None if the arm's release cannot be used.
        reason: Why the release cannot be used; "" if it can.
        is_loading: Whether this gateway has neither loaded nor refused the release yet.
    """

    arm: Arm
    route: Route | None
    reason: str
    is_loading: bool = False


def with_ranking(release: GatewayRelease, weights: Mapping[str, float]) -> GatewayRelease:
    """Returns the same release with other ranking weights, and without precomputed pages.

    See `marquee_core.release.derive.with_ranking`.

    Raises:
        ModelNotFound: The release lacks one of the models.
    """
    backend_of = {name: release.model(name).backend for name in weights}
    blended = dataclasses.replace(
        release,
        ensemble=derive.with_ranking(release.ensemble, backend_of, weights),
        precomputed_pages=PrecomputedPages.none(release.manifest.data.user_count),
    )
    # Share what is computed from the catalogue, which is the same and large.
    shared = [
        name
        for name, found in vars(GatewayRelease).items()
        if isinstance(found, cached_property) and not name.startswith("_")
    ]
    blended.__dict__.update({name: getattr(release, name) for name in shared})
    return blended
