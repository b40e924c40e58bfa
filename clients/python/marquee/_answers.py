"""What calls return: items, and sequences of them with what else the answer says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from marquee._types import AnswerSource, Item, Reason, SubjectKind

if TYPE_CHECKING:
    from marquee._errors import MarqueeError
    from marquee._options import Subject
    from marquee.v1 import recommender_service_pb2 as pb

T = TypeVar("T", covariant=True)


class _Described:
    """Reads through to the metadata that came with an item, when it was asked for."""

    __slots__ = ()
    metadata: Item | None

    @property
    def title(self) -> str | None:
        """The title; None unless the call said `include_metadata`."""
        return self.metadata.title if self.metadata else None

    @property
    def year(self) -> int | None:
        """The year; None when not known, or unless the call said `include_metadata`."""
        return self.metadata.year if self.metadata else None

    @property
    def genres(self) -> tuple[str, ...]:
        """The genres; empty unless the call said `include_metadata`."""
        return self.metadata.genres if self.metadata else ()


@dataclass(frozen=True, slots=True)
class Recommendation(_Described):
    """A recommended item.

    Attributes:
        item_id: The item.
        rank: Its place in the whole list, from 1, over all pages.
        score: The ensemble's ranking score; comparable within one answer only.
        predicted_stars: The predicted rating, in stars.
        proposed_by: The models that had it among their own best.
        metadata: What is known about it; None unless asked for.
        reasons: Evidence; empty unless asked for.
        raw: The message.
    """

    item_id: str
    rank: int
    score: float
    predicted_stars: float
    proposed_by: tuple[str, ...]
    metadata: Item | None
    reasons: tuple[Reason, ...]
    raw: pb.RecommendedItem = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class SimilarItem(_Described):
    """An item similar to another.

    Attributes:
        item_id: The item.
        rank: Its place in the list, from 1.
        similarity: The blended similarity, -1 to 1.
        proposed_by: The models that had it among their own most similar.
        metadata: What is known about it; None unless asked for.
        raw: The message.
    """

    item_id: str
    rank: int
    similarity: float
    proposed_by: tuple[str, ...]
    metadata: Item | None
    raw: pb.SimilarItem = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class PredictedRating:
    """A predicted rating.

    Attributes:
        item_id: The item.
        stars: The prediction in stars; None when the release does not know the item.
    """

    item_id: str
    stars: float | None


class _Rows(Sequence[T]):
    """A sequence of the answer's items."""

    __slots__ = ()
    columns: ClassVar[tuple[str, ...]]
    items: tuple[T, ...]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[T]:
        return iter(self.items)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[T, ...]: ...
    def __getitem__(self, index: int | slice) -> T | tuple[T, ...]:
        return self.items[index]

    def to_frame(self) -> Any:
        """The items as a `pandas.DataFrame`, a row each, with the columns of `columns`.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            pandas = import_module("pandas")
        except ModuleNotFoundError as error:
            raise ImportError("to_frame() needs pandas: pip install pandas") from error
        rows = [[getattr(item, name) for name in self.columns] for item in self.items]
        return pandas.DataFrame(rows, columns=list(self.columns))


@dataclass(frozen=True, slots=True)
class Recommendations(_Rows[Recommendation]):
    """Recommendations, best first: a sequence of `Recommendation`.

    Attributes:
        items: The items of this page.
        recommendation_id: Names the list; the same on each of its pages.
        subject_kind: How the release sees the subject.
        source: Which release answered, and with what.
        unknown_item_ids: Item ids of the request that the release does not know; ignored.
        next_page_token: The next page's token; empty on the last page, and in a batch.
        raw: The message.
    """

    columns = ("rank", "item_id", "title", "year", "genres", "score", "predicted_stars")
    items: tuple[Recommendation, ...]
    recommendation_id: str
    subject_kind: SubjectKind
    source: AnswerSource
    unknown_item_ids: tuple[str, ...]
    next_page_token: str
    raw: pb.RecommendResponse | pb.BatchRecommendResponse.Recommendations = field(
        repr=False, compare=False
    )


@dataclass(frozen=True, slots=True)
class BatchAnswer:
    """The answer for one subject of a batch: recommendations, or an error.

    Attributes:
        index: The place of the subject in the request, from 0.
        subject: The subject.
        recommendations: The answer; None if it failed.
        error: The error; None if it did not fail.
        raw: The message.
    """

    index: int
    subject: Subject
    recommendations: Recommendations | None
    error: MarqueeError | None
    raw: pb.BatchRecommendResponse.SubjectAnswer = field(repr=False, compare=False)

    def unwrap(self) -> Recommendations:
        """The recommendations.

        Raises:
            MarqueeError: This subject's error.
        """
        if self.recommendations is None:
            assert self.error is not None  # noqa: S101 - one of the two is set
            raise self.error
        return self.recommendations


@dataclass(frozen=True, slots=True)
class PredictedRatings(_Rows[PredictedRating]):
    """Predicted ratings in the order asked for: a sequence of `PredictedRating`.

    Attributes:
        items: The predictions.
        subject_kind: How the release sees the subject.
        source: Which release answered, and with what.
        unknown_item_ids: Ids among the subject's ratings and liked items that the release does not
            know; ignored.
        raw: The message.
    """

    columns = ("item_id", "stars")
    items: tuple[PredictedRating, ...]
    subject_kind: SubjectKind
    source: AnswerSource
    unknown_item_ids: tuple[str, ...]
    raw: pb.PredictRatingsResponse = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class SimilarItems(_Rows[SimilarItem]):
    """Similar items, most similar first: a sequence of `SimilarItem`.

    Attributes:
        items: The items.
        source: Which release answered, and with what.
        unknown_item_ids: Item ids of the filter that the release does not know; ignored.
        raw: The message.
    """

    columns = ("rank", "item_id", "title", "year", "genres", "similarity")
    items: tuple[SimilarItem, ...]
    source: AnswerSource
    unknown_item_ids: tuple[str, ...]
    raw: pb.SimilarItemsResponse = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class FoundItems(_Rows[Item]):
    """Items found by title, best match first: a sequence of `Item`.

    Attributes:
        items: The items of this page.
        release_id: The release searched.
        next_page_token: The next page's token; empty on the last page.
        raw: The message.
    """

    columns = ("item_id", "title", "year", "genres", "rating_count", "mean_stars")
    items: tuple[Item, ...]
    release_id: str
    next_page_token: str
    raw: pb.SearchItemsResponse = field(repr=False, compare=False)
