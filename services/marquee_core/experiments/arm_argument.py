"""Parses the command-line argument for an arm: NAME=RELEASE[@BLEND]:PERCENT."""

from __future__ import annotations

from marquee_core.experiments.experiment import Arm, ExperimentError

PRODUCTION = "production"
"""Stands for the release that is in production when the experiment starts."""

_FORM = "NAME=RELEASE:PERCENT, or NAME=RELEASE@MODEL=WEIGHT,…:PERCENT"


def parse_arm(text: str, production: str) -> Arm:
    """Parses an arm.

    `control=20240301-…:90` is a release with its own blend. The models after `@` replace that
    blend: `popular=20240301-…@popularity:50`, or `calm=production@ease=0.7,ials=0.3:10`. The
    default weight of a model is 1.

    Args:
        text: The argument.
        production: The id of the release in production; "" if there is none.

    Raises:
        ExperimentError: The argument does not have this form, or it refers to production although
            no release is in production.
    """
    name, equals, rest = text.partition("=")
    source, colon, percent = rest.rpartition(":")
    if not equals or not colon:
        raise ExperimentError(f"{text!r} is not an arm: {_FORM}")
    release_id, at, blend = source.partition("@")
    if release_id == PRODUCTION:
        if not production:
            raise ExperimentError("no release is in production")
        release_id = production
    weights: dict[str, float] = {}
    for part in blend.split(",") if at else ():
        model, has_weight, weight = part.partition("=")
        if not model or model in weights:
            raise ExperimentError(f"{text!r}: a model name is missing or repeated")
        weights[model] = _number(weight, text) if has_weight else 1.0
    return Arm(name, release_id, _number(percent.removesuffix("%"), text), weights)


def _number(text: str, arm: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ExperimentError(f"{arm!r}: {text!r} is not a number ({_FORM})") from None
