"""The first pages of known users, ranked when the release was made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from marquee.v1 import recommender_service_pb2 as pb
from marquee_services.arrays import Float32, Float64, Int32, load_array, save_array
from marquee_services.errors import ArtifactError
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE
from marquee_services.release.contents import FIRST_PAGES
from marquee_services.release.manifest import Manifest

PADDING = -1
_BITS = 32


@dataclass(frozen=True)
class FirstPage:
    """A user's best unseen items, best first.

    Attributes:
        items: Item indexes (int32, n).
        scores: The ensemble's scores for order (float64, n).
        stars: Predicted ratings, within the scale (float64, n).
        proposers: For each item, the models that have it among their own best, by name.
    """

    items: Int32
    scores: Float64
    stars: Float32
    proposers: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class FirstPages:
    """What plain requests of known users are answered with while the whole ensemble is there.

    Attributes:
        users: The users, ascending (int32, U).
        items: Their items, best first; `PADDING` after the last (int32, U × K).
        scores: The ensemble's scores for order (float64, U × K).
        stars: Predicted ratings, within the scale (float32, U × K).
        proposed: Bit m: the m-th of `models` has it among its own best (uint32, U × K).
        models: The names of the release's models, in the manifest's order.
    """

    users: Int32
    items: Int32
    scores: Float64
    stars: Float32
    proposed: NDArray[np.uint32]
    models: tuple[str, ...]

    def get(self, user: int, count: int) -> FirstPage | None:
        """The best of a user's items, at most `count`; None for a user who is not there."""
        place = int(np.searchsorted(self.users, user))
        if count > self.items.shape[1] or place == len(self.users) or self.users[place] != user:
            return None
        items = self.items[place, :count]
        end = int(np.count_nonzero(items != PADDING))
        items = items[:end]
        return FirstPage(
            items,
            self.scores[place, :end],
            self.stars[place, :end],
            [_names(self.models, bits) for bits in self.proposed[place, :end].tolist()],
        )

    def save(self, folder: Path) -> None:
        """Writes the arrays below a release's folder; the models' names are the manifest's."""
        for name in ("users", "items", "scores", "stars", "proposed"):
            save_array(folder / FIRST_PAGES / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path, manifest: Manifest) -> Self:
        """Maps what `save` wrote; of a release without such files, no pages.

        Raises:
            ArtifactError: The arrays do not fit one another, or the release.
        """
        models = tuple(model.name for model in manifest.models)
        if f"{FIRST_PAGES}/users.npy" not in manifest.files:
            return cls.none(models)
        here = folder / FIRST_PAGES
        users = load_array(here / "users.npy", np.int32, (None,))
        items = load_array(here / "items.npy", np.int32, (len(users), None))
        found = cls(
            users,
            items,
            load_array(here / "scores.npy", np.float64, items.shape),
            load_array(here / "stars.npy", np.float32, items.shape),
            load_array(here / "proposed.npy", np.uint32, items.shape),
            models,
        )
        found._check(manifest.data.user_count, manifest.data.item_count)
        return found

    @classmethod
    def none(cls, models: tuple[str, ...]) -> Self:
        """No user's page."""
        shape = (0, DEFAULT_PAGE_SIZE)
        return cls(
            np.empty(0, np.int32),
            np.empty(shape, np.int32),
            np.empty(shape, np.float64),
            np.empty(shape, np.float32),
            np.empty(shape, np.uint32),
            models,
        )

    def _check(self, user_count: int, item_count: int) -> None:
        if len(self.models) > _BITS:
            raise ArtifactError(f"first pages of more than {_BITS} models")
        if not len(self.users):
            return
        if (
            not (np.diff(self.users) > 0).all()
            or not 0 <= self.users[0] <= self.users[-1] < user_count
        ):
            raise ArtifactError("the users of first pages are not ascending users of the release")
        if self.items.size and not PADDING <= self.items.min() <= self.items.max() < item_count:
            raise ArtifactError("first pages hold items that the release does not have")
        filled = self.items != PADDING
        if (filled[:, 1:] & ~filled[:, :-1]).any():
            raise ArtifactError("first pages have gaps")
        if not (np.isfinite(self.scores).all() and np.isfinite(self.stars).all()):
            raise ArtifactError("not every score of the first pages is finite")
        if int(self.proposed.max(initial=0)) >> len(self.models):
            raise ArtifactError("first pages name models that the release does not have")


# Few sets of models are met again and again.
@lru_cache(maxsize=4096)
def _names(models: tuple[str, ...], bits: int) -> tuple[str, ...]:
    return tuple(sorted(name for m, name in enumerate(models) if bits >> m & 1))


def asks_for_first_page(request: pb.RecommendRequest) -> bool:
    """Whether a request is one that a known user's first page answers.

    Metadata and the release may be asked for; filters and whatever changes the order may not.
    """
    subject, options = request.subject, request.options
    if request.page_token or subject.ratings or subject.liked_item_ids:
        return False
    plain = pb.RecommendOptions(
        include_metadata=options.include_metadata, release_id=options.release_id
    )
    if options.HasField("filter"):
        # One that is empty asks for nothing.
        plain.filter.SetInParent()
    return bool(0 <= request.page_size <= DEFAULT_PAGE_SIZE and options == plain)
