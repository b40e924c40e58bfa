"""Parses an arm as the command line takes it: NAME=RELEASE[@BLEND]:PERCENT."""

from __future__ import annotations

from marquee_core.experiments.experiment import Arm, ExperimentError

PRODUCTION = "production"
"""Stands for the release that is in production when the experiment starts."""

_FORM = "NAME=RELEASE:PERCENT, or NAME=RELEASE@MODEL=WEIGHT,…:PERCENT"


def parse_arm(text: str, production: str) -> Arm:
    """Parses an arm.

    `control=20240301-…:90` is a release with its own blend. After `@` come the models that rank in
    its place: `popular=20240301-…@popularity:50`, or `calm=production@ease=0.7,ials=0.3:10`. A
    model without a weight has the weight 1.

    Args:
        text: The arm.
        production: The id of the release in production; "" if there is none.

    Raises:
        ExperimentError: The text has another form, or names production and there is none.
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
            raise ExperimentError(f"{text!r}: a model is missing or named twice")
        weights[model] = _number(weight, text) if has_weight else 1.0
    return Arm(name, release_id, _number(percent.removesuffix("%"), text), weights)


def _number(text: str, arm: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ExperimentError(f"{arm!r}: {text!r} is not a number ({_FORM})") from None
