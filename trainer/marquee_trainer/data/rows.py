"""Ratings as columns, in the order of their source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from marquee_trainer.data.chunked import ChunkedArray
from marquee_trainer.data.ids import IdColumn


@dataclass(frozen=True)
class Rows:
    """Ratings as columns, in the order of their source.

    Attributes:
        users: User ids (n).
        items: Item ids (n).
        ratings: The ratings (float32, n).
        timestamps: Seconds since 1970 (int32 or int64, n); None if the source has none.
        where: Returns the location of a row, such as `u.data:17`.
    """

    users: IdColumn
    items: IdColumn
    ratings: ChunkedArray[np.float32]
    timestamps: ChunkedArray[np.int32] | ChunkedArray[np.int64] | None
    where: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.ratings)
