"""Leaves out the slowest models while the gateway is overloaded and models are what limits it.

A model that is left out is treated like one that abstains: a ranker adds nothing to the ranking,
and a rating predictor is replaced by the baseline.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from marquee_core.release.ensemble import BASELINE, Blend, BlendPair
from marquee_core.service_names import GATEWAY
from marquee_services.gateway.releases.release import GatewayRelease

# The remaining models take at most this share of the time of all models.
_SHARE_KEPT = 0.5
# Models limit a backend that computes with them for at least this share of the time, which is
# measured over periods of this many seconds.
_BUSY_SHARE, _PERIOD_S = 0.8, 2.0


class ModelLoad:
    """Measures the share of the time for which backends compute with models.

    If it is small, leaving models out would make answers incomplete, but hardly faster: handing
    over calls and refusing them is then what takes the time.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Creates the measurement; `clock` returns the time in seconds."""
        self._clock = clock
        self._start = -_PERIOD_S
        self._totals: Mapping[str, float] = {}
        self._is_high = False

    def is_high(self, totals: Mapping[str, float]) -> bool:
        """Returns whether models limited a backend in the last whole period.

        Args:
            totals: By backend, the seconds for which it has computed with models so far.
        """
        now = self._clock()
        elapsed_s = now - self._start
        if elapsed_s >= _PERIOD_S:
            # A measurement that was not continued at once says nothing about now.
            self._is_high = elapsed_s < 2 * _PERIOD_S and any(
                total - self._totals.get(name, total) >= _BUSY_SHARE * elapsed_s
                for name, total in totals.items()
            )
            self._start, self._totals = now, totals
        return self._is_high


def slowest_models(
    release: GatewayRelease, blends: BlendPair, seconds: Mapping[str, float]
) -> frozenset[str]:
    """Returns the slowest models, such that the others take at most half of the total time.

    At least one ranking model of the backends remains, as do models whose time is unknown.

    Args:
        release: The release that answers.
        blends: The blends of the answer.
        seconds: The time that models have taken, by name; only the ratios are meaningful.
    """
    timed = {
        name: seconds[name]
        for name in blends.models()
        if release.models[name].backend != GATEWAY and seconds.get(name, 0.0) > 0
    }
    rankers = {n for n in blends.ranking.weights if release.models[n].backend != GATEWAY}
    left = total = sum(timed.values())
    out = set[str]()
    for name in sorted(timed, key=timed.__getitem__, reverse=True):
        if left <= _SHARE_KEPT * total:
            break
        if rankers - out != {name}:
            out.add(name)
            left -= timed[name]
    return frozenset(out)


def without_models(
    release: GatewayRelease, blends: BlendPair, left_out: frozenset[str]
) -> BlendPair:
    """Returns blends without some models, computed once for each release and set of models.

    Args:
        release: The release of the blends.
        blends: The blends.
        left_out: The names of the models to leave out.
    """
    out = left_out.intersection(blends.models()) if left_out else left_out
    if not out:
        return blends

    def compute() -> BlendPair:
        return BlendPair(
            _without(release, blends.rating, out), _without(release, blends.ranking, out)
        )

    return release.cached((blends.rating, blends.ranking), ("without", out), compute)


def _without(release: GatewayRelease, blend: Blend, out: frozenset[str]) -> Blend:
    weights = {name: weight for name, weight in blend.weights.items() if name not in out}
    freed = sum(blend.weights[n] for n in out & release.stars_models if n in blend.weights)
    if freed:
        weights[BASELINE] = weights.get(BASELINE, 0.0) + freed
    return Blend(weights, blend.intercept)
