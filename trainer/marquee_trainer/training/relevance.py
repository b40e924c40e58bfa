"""Defines which ratings make an item relevant, for learning and evaluating rankings."""

from __future__ import annotations

import math

import numpy as np

from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.scale import Feedback

STARS = 4.0
"""The relevance threshold on the scales of MovieLens, 0.5 to 5 and 1 to 5 stars."""

# The relevance threshold as a share of the scale: 4 on a scale from 1 to 5.
_SHARE_OF_SCALE = 0.75
# If a smaller share of the ratings reaches the threshold, `_QUANTILE` is used instead.
_MIN_SHARE = 0.05
# The quantile of the ratings that is the threshold in that case.
_QUANTILE = 0.75


def relevant_rating(dataset: RatingsDataset) -> float:
    """The relevance threshold: the lowest rating that makes an item relevant to the user.

    - Implicit feedback: any interaction.
    - Ratings: the upper quarter of the scale, which begins at 4 on MovieLens' scales, 8 on 1 to
      10, 75 on 0 to 100, and 1 for thumbs. If users do not use that quarter (fewer than 5 % of the
      ratings are in it), the upper quartile of the ratings.

    Args:
        dataset: The ratings.
    """
    scale, ratings = dataset.scale, dataset.ratings
    if dataset.feedback is Feedback.IMPLICIT:
        return dataset.from_stars(STARS)
    threshold = scale.low + _SHARE_OF_SCALE * (scale.high - scale.low)
    if scale.step:
        # Rounded up to the next rating on the scale; the margin absorbs rounding errors.
        steps = math.ceil((threshold - scale.low) / scale.step - 1e-9)
        threshold = scale.low + steps * scale.step
    if float(np.mean(ratings >= threshold)) < _MIN_SHARE:
        return float(np.quantile(ratings, _QUANTILE, method="higher"))
    return threshold
