"""Results of calls: items, and sequences of items together with other fields of the response."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from marquee._html import table
from marquee._types import AnswerSource, Item, Reason, SubjectKind

if TYPE_CHECKING:
    from marquee._errors import MarqueeError
    from marquee._options import Subject
    from marquee.v1 import recommender_service_pb2 as pb

T = TypeVar("T", covariant=True)


class _HasMetadata:
    """Shortcuts to the metadata of an item, which is present only if it was requested."""

    __slots__ = ()
    metadata: Item | None

    @property
    def title(self) -> str | None:
        """The title; None unless the call set `include_metadata`."""
        return self.metadata.title if self.metadata else None

    @property
    def year(self) -> int | None:
        """The year of release; None if unknown, or unless the call set `include_metadata`."""
        return self.metadata.year if self.metadata else None

    @property
    def genres(self) -> tuple[str, ...]:
        """The genres; empty unless the call set `include_metadata`."""
        return self.metadata.genres if self.metadata else ()


@dataclass(frozen=True, slots=True)
class Recommendation(_HasMetadata):
    """A recommended item.

    Attributes:
        item_id: The item's id.
        rank: The position in the list, counted from 1 over all pages.
        score: The ranking score; comparable only within one list.
        predicted_stars: The predicted rating in stars; None if the release was trained on implicit
            feedback.
        proposed_by: The names of the ranking models that have the item among their own top items.
        metadata: The item's metadata; None unless the call set `include_metadata`.
        reasons: Why the item was recommended; empty unless the call set `include_reasons`.
        raw: The protobuf message that this was made from.
    """

    item_id: str
    rank: int
    score: float
    predicted_stars: float | None
    proposed_by: tuple[str, ...]
    metadata: Item | None
    reasons: tuple[Reason, ...]
    raw: pb.RecommendedItem = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class SimilarItem(_HasMetadata):
    """An item of a list of similar items.

    Attributes:
        item_id: The item's id.
        rank: The position in the list, counted from 1.
        similarity: The mean similarity over the models, above 0 and at most 1.
        proposed_by: The names of the models that rank the item among their own most similar items.
        metadata: The item's metadata; None unless the call set `include_metadata`.
        raw: The protobuf message that this was made from.
    """

    item_id: str
    rank: int
    similarity: float
    proposed_by: tuple[str, ...]
    metadata: Item | None
    raw: pb.SimilarItem = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class PredictedRating:
    """The predicted rating of one item.

    Attributes:
        item_id: The item's id.
        stars: The predicted rating in stars; None if the item is not in the release.
    """

    item_id: str
    stars: float | None


class _Rows(Sequence[T]):
    """A result that acts as a sequence of its `items`.

    Attributes:
        columns: The attributes of an item that become the columns of `to_frame`.
        items: The items.
    """

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
        """Returns a `pandas.DataFrame` with one row per item and the attributes in `columns`.

        Raises:
            ImportError: pandas is not installed.
        """
        try:
            pandas = import_module("pandas")
        except ModuleNotFoundError as error:
            raise ImportError("to_frame() needs pandas: pip install pandas") from error
        return pandas.DataFrame(self._values(), columns=list(self.columns))

    def _repr_html_(self) -> str:
        """Returns the items as an HTML table for notebooks."""
        return table(self.columns, self._values())

    def _values(self) -> list[list[Any]]:
        """Returns one row per item with the values of `columns`."""
        return [[getattr(item, name) for name in self.columns] for item in self.items]


@dataclass(frozen=True, slots=True)
class Recommendations(_Rows[Recommendation]):
    """A page of recommendations, best first: a sequence of `Recommendation`.

    Attributes:
        items: The items of this page.
        recommendation_id: The id of the list, which all of its pages share.
        subject_kind: How the release treats the subject.
        source: The release and models that the answer comes from.
        unknown_item_ids: Ids in the request that are not in the release; they were ignored.
        next_page_token: The token for requesting the next page; empty on the last page, and in
            the answers of a batch.
        raw: The protobuf message that this was made from.
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
    """The result for one subject of a batch: recommendations or an error.

    Attributes:
        index: The position of the subject in the request, counted from 0.
        subject: The subject.
        recommendations: The recommendations; None if there was an error.
        error: The error; None if there was none.
        raw: The protobuf message that this was made from.
    """

    index: int
    subject: Subject
    recommendations: Recommendations | None
    error: MarqueeError | None
    raw: pb.BatchRecommendResponse.SubjectAnswer = field(repr=False, compare=False)

    def unwrap(self) -> Recommendations:
        """Returns the recommendations, or raises the subject's error.

        Raises:
            MarqueeError: The subject could not be answered.
        """
        if self.recommendations is None:
            assert self.error is not None  # noqa: S101 - one of the two is set
            raise self.error
        return self.recommendations


@dataclass(frozen=True, slots=True)
class PredictedRatings(_Rows[PredictedRating]):
    """Predicted ratings in the order of the requested items: a sequence of `PredictedRating`.

    Attributes:
        items: The predictions.
        subject_kind: How the release treats the subject.
        source: The release and models that the answer comes from.
        unknown_item_ids: Ids of rated and liked items that are not in the release; they were
            ignored.
        raw: The protobuf message that this was made from.
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
        source: The release and models that the answer comes from.
        unknown_item_ids: Ids in the filter that are not in the release; they were ignored.
        raw: The protobuf message that this was made from.
    """

    columns = ("rank", "item_id", "title", "year", "genres", "similarity")
    items: tuple[SimilarItem, ...]
    source: AnswerSource
    unknown_item_ids: tuple[str, ...]
    raw: pb.SimilarItemsResponse = field(repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class FoundItems(_Rows[Item]):
    """A page of items found by title, best match first: a sequence of `Item`.

    Attributes:
        items: The items of this page.
        release_id: The id of the release whose catalogue was searched.
        next_page_token: The token for requesting the next page; empty on the last page.
        raw: The protobuf message that this was made from.
    """

    columns = ("item_id", "title", "year", "genres", "rating_count", "mean_stars")
    items: tuple[Item, ...]
    release_id: str
    next_page_token: str
    raw: pb.SearchItemsResponse = field(repr=False, compare=False)
