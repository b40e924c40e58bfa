"""Client library for Marquee, a movie recommender served over gRPC.

    import marquee

    with marquee.Client("localhost:50051") as client:
        for movie in client.recommend("42", include_metadata=True):
            print(movie.rank, movie.title)

`Client` makes blocking calls and may be shared by threads; `AsyncClient` has the same methods for
asyncio. Both return frozen dataclasses, and raise a subclass of `MarqueeError` if a call fails. The
generated protobuf messages are in `marquee.v1`. This package imports no other package of the
project, except that its command line uses `marquee_start`. Read `_client.py` first.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from marquee._answers import (
    BatchAnswer,
    FoundItems,
    PredictedRating,
    PredictedRatings,
    Recommendation,
    Recommendations,
    SimilarItem,
    SimilarItems,
)
from marquee._errors import (
    Cancelled,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    MarqueeError,
    NotFound,
    Overloaded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
    Unimplemented,
    Violation,
)
from marquee._feedback import (
    DeletedFeedback,
    FeedbackEvent,
    FeedbackKind,
    FeedbackPage,
    RecordedFeedback,
)
from marquee._options import TLS, ItemFilter, RecommendOptions, Subject
from marquee._state import (
    ArmStatus,
    BackendStatus,
    ExperimentStatus,
    FeedbackStatus,
    GateCheck,
    GateVerdict,
    ModelStatus,
    ReleaseEvaluation,
    ReleaseStatus,
    Status,
)
from marquee._token_file import TokenFile
from marquee._types import (
    AnswerSource,
    Decomposition,
    DegradedReason,
    Item,
    ModelShare,
    ModelWeight,
    RatedItem,
    Reason,
    SimilarUsers,
    SubjectKind,
)

if TYPE_CHECKING:
    from marquee._async_client import AsyncClient
    from marquee._client import Client
    from marquee._version import __version__

__all__ = [
    "TLS",
    "AnswerSource",
    "ArmStatus",
    "AsyncClient",
    "BackendStatus",
    "BatchAnswer",
    "Cancelled",
    "Client",
    "DeadlineExceeded",
    "Decomposition",
    "DegradedReason",
    "DeletedFeedback",
    "ExperimentStatus",
    "FailedPrecondition",
    "FeedbackEvent",
    "FeedbackKind",
    "FeedbackPage",
    "FeedbackStatus",
    "FoundItems",
    "GateCheck",
    "GateVerdict",
    "Internal",
    "InvalidArgument",
    "Item",
    "ItemFilter",
    "MarqueeError",
    "ModelShare",
    "ModelStatus",
    "ModelWeight",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "PredictedRating",
    "PredictedRatings",
    "RatedItem",
    "Reason",
    "RecommendOptions",
    "Recommendation",
    "Recommendations",
    "RecordedFeedback",
    "ReleaseEvaluation",
    "ReleaseStatus",
    "SimilarItem",
    "SimilarItems",
    "SimilarUsers",
    "Status",
    "Subject",
    "SubjectKind",
    "TokenFile",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Violation",
    "__version__",
]

# Importing gRPC and protobuf takes about a quarter of a second. These names are imported on first
# use, so that `import marquee` is fast for programs that make no call.
_LAZY = {
    "AsyncClient": "marquee._async_client",
    "Client": "marquee._client",
    "__version__": "marquee._version",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_LAZY[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
