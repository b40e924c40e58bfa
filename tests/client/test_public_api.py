"""The public API of the client library."""

from __future__ import annotations

import inspect
import pickle
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from importlib.metadata import version
from importlib.resources import files
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import marquee
from marquee import _feedback_calls, _requests
from marquee.testing import FakeGateway
from marquee.v1 import feedback_service_pb2, types_pb2
from marquee.v1 import recommender_service_pb2 as pb
from toy.waiting import PROCESS_S

# The names that users rely on. Removing one breaks their programs.
PUBLIC = set(
    """
    AnswerSource ArmStatus AsyncClient BackendStatus BatchAnswer Cancelled Client DeadlineExceeded
    Decomposition DegradedReason DeletedFeedback ExperimentStatus FailedPrecondition FeedbackEvent
    FeedbackKind FeedbackPage FeedbackStatus FoundItems GateCheck GateVerdict Internal
    InvalidArgument Item ItemFilter MarqueeError ModelShare ModelStatus ModelWeight NotFound
    Overloaded PermissionDenied
    PredictedRating PredictedRatings RatedItem Reason RecommendOptions Recommendation
    Recommendations RecordedFeedback ReleaseEvaluation ReleaseStatus SimilarItem SimilarItems
    SimilarUsers Status Subject SubjectKind TLS TokenFile Unauthenticated Unavailable Unimplemented
    Violation
    __version__
    """.split()  # noqa: SIM905 - a list of 54 strings reads worse
)


def test_the_public_names_are_pinned() -> None:
    """`__all__` has exactly the expected names, and each of them exists."""
    assert set(marquee.__all__) == PUBLIC
    for name in marquee.__all__:
        assert getattr(marquee, name) is not None
    assert set(dir(marquee)) == PUBLIC


def test_an_unknown_name_is_an_attribute_error() -> None:
    """Lazy imports do not hide misspelt names."""
    with pytest.raises(AttributeError, match="Klient"):
        _ = marquee.Klient


def test_the_version_is_that_of_the_distribution() -> None:
    """`__version__` is the version of the installed distribution."""
    assert marquee.__version__ == version("marquee-recommender")


def test_the_package_is_marked_as_typed() -> None:
    """The package has the marker file that makes type checkers use its annotations."""
    assert files("marquee").joinpath("py.typed").is_file()


def _public_methods(client: type) -> dict[str, inspect.Signature]:
    return {
        name: inspect.signature(method)
        for name, method in inspect.getmembers(client, inspect.isfunction)
        if not name.startswith("_") or name == "__init__"
    }


@pytest.mark.parametrize(
    "clients",
    [
        (marquee.Client, marquee.AsyncClient),
        (_feedback_calls.Feedback, _feedback_calls.AsyncFeedback),
    ],
)
def test_both_clients_have_the_same_methods(clients: tuple[type, type]) -> None:
    """Names, parameters, defaults and result types are the same apart from `async`."""
    sync, asynchronous = map(_public_methods, clients)
    for methods in (sync, asynchronous):
        methods["__init__"] = _without_annotations(methods["__init__"])
    assert sync.keys() == asynchronous.keys()
    for name, signature in sync.items():
        assert signature.parameters == asynchronous[name].parameters, name
        expected = str(signature.return_annotation)
        actual = str(asynchronous[name].return_annotation)
        assert actual.replace("AsyncIterator", "Iterator") == expected, name


def _without_annotations(signature: inspect.Signature) -> inspect.Signature:
    """Ignore annotations, since the constructors of the feedback calls take different functions."""
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    return signature.replace(parameters=parameters)


@pytest.mark.parametrize(
    ("options", "builder", "messages"),
    [
        (marquee.ItemFilter, _requests.item_filter, [types_pb2.ItemFilter]),
        (
            marquee.RecommendOptions,
            _requests.recommend_options,
            [types_pb2.ItemFilter, pb.RecommendOptions],
        ),
    ],
)
def test_options_are_those_of_the_protocol(options: Any, builder: Any, messages: list[Any]) -> None:
    """The options are exactly the fields of the messages, and the request builders accept them."""
    fields = {field.name for message in messages for field in message.DESCRIPTOR.fields}
    assert set(options.__annotations__) == fields - {"filter"}
    accepted = inspect.signature(builder).parameters
    own = {name for name, parameter in accepted.items() if parameter.kind == parameter.KEYWORD_ONLY}
    inherited = {field.name for field in types_pb2.ItemFilter.DESCRIPTOR.fields}
    assert own | inherited == set(options.__annotations__)


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("recommend", marquee.RecommendOptions),
        ("recommend_pages", marquee.RecommendOptions),
        ("batch_recommend", marquee.RecommendOptions),
        ("similar_items", marquee.ItemFilter),
    ],
)
def test_every_option_is_a_named_parameter(method: str, options: Any) -> None:
    """Signatures list each option with its type, so that editors and notebooks complete them."""
    parameters = inspect.signature(getattr(marquee.Client, method)).parameters
    assert not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values())
    for name, annotation in options.__annotations__.items():
        assert parameters[name].kind == inspect.Parameter.KEYWORD_ONLY, name
        expected = getattr(annotation, "__forward_arg__", annotation)
        assert parameters[name].annotation == expected, name


def test_every_call_takes_a_timeout_and_metadata() -> None:
    """Every method that makes a call has both parameters."""
    for name, signature in _public_methods(marquee.Client).items():
        if name not in ("__init__", "close"):
            assert {"timeout", "metadata"} <= set(signature.parameters), name


@pytest.mark.parametrize(
    ("client_enum", "proto_enum", "prefix"),
    [
        (marquee.SubjectKind, types_pb2.SubjectKind, "SUBJECT_KIND_"),
        (marquee.DegradedReason, types_pb2.DegradedReason, "DEGRADED_REASON_"),
        (marquee.FeedbackKind, feedback_service_pb2.FeedbackKind, "FEEDBACK_KIND_"),
        (marquee.Decomposition, pb.Reason.Decomposition, "DECOMPOSITION_"),
    ],
)
def test_enums_are_those_of_the_protocol(client_enum: Any, proto_enum: Any, prefix: str) -> None:
    """Each value of the protobuf enum has a member in the client's enum."""
    assert [prefix + member.value for member in client_enum] == list(proto_enum.keys())


def _modules_after(code: str) -> set[str]:
    result = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys\nprint(*sys.modules)"],
        check=True,
        capture_output=True,
        text=True,
        timeout=PROCESS_S,
    )
    return set(result.stdout.split())


def test_importing_marquee_imports_no_heavy_packages() -> None:
    """`import marquee` imports neither gRPC, protobuf and click nor NumPy and TensorFlow."""
    heavy = {"grpc", "google.protobuf", "click", "numpy", "tensorflow", "pandas", "scipy"}
    assert not heavy & _modules_after("import marquee")


def test_the_client_needs_no_extra() -> None:
    """A client that makes calls imports only packages of the base installation."""
    code = (
        "import marquee, marquee.testing\n"
        "gateway = marquee.testing.FakeGateway()\n"
        "with gateway, marquee.Client(gateway.address, timeout=60) as client: client.status()"
    )
    extras = {"numpy", "tensorflow", "click", "scipy", "pandas", "grpc_health.v1.health"}
    assert not extras & _modules_after(code)


def _answer() -> marquee.Recommendations:
    item = types_pb2.Item(item_id="50", title="Star Wars", year=1977, genres=["Action"])
    response = pb.RecommendResponse(
        items=[
            pb.RecommendedItem(item_id="50", rank=1, score=1.5, predicted_stars=4.5, metadata=item),
            pb.RecommendedItem(item_id="51", rank=2),
        ]
    )
    with FakeGateway() as gateway, marquee.Client(gateway.address, timeout=60) as client:
        gateway.on("Recommend", response)
        return client.recommend("42")


def test_results_are_immutable_and_picklable() -> None:
    """Results are frozen, comparable, hashable and picklable, including `raw`."""
    answer = _answer()
    with pytest.raises(AttributeError):
        answer.recommendation_id = "other"  # type: ignore[misc]
    with pytest.raises(AttributeError):
        answer[0].rank = 2  # type: ignore[misc]
    copy = pickle.loads(pickle.dumps(answer))  # noqa: S301 - our own bytes
    assert copy == answer
    assert hash(copy) == hash(answer)
    assert copy.raw == answer.raw


def test_to_frame_passes_rows_to_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    """`to_frame` passes rows and column names to `pandas.DataFrame`, which is a stub here."""
    pandas = SimpleNamespace(DataFrame=lambda rows, columns: (rows, columns))
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    rows, columns = _answer().to_frame()
    assert columns == ["rank", "item_id", "title", "year", "genres", "score", "predicted_stars"]
    assert rows == [
        [1, "50", "Star Wars", 1977, ("Action",), 1.5, 4.5],
        [2, "51", None, None, (), 0.0, None],
    ]


def test_to_frame_without_pandas_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """If pandas is not installed, the error says how to install it."""
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        _answer().to_frame()


def test_notebooks_show_a_table() -> None:
    """Each item is a row, and columns without any value are omitted."""
    answer = _answer()
    html = answer._repr_html_()
    assert html.count("<tr>") == 1 + len(answer)
    assert "<th>predicted stars</th>" in html
    for cell in ("Star Wars", "Action", "4.500"):
        assert f">{cell}</td>" in html
    assert "<th>genres</th>" in html
    assert "<th>genres</th>" not in replace(answer, items=answer.items[1:])._repr_html_()
    assert replace(answer, items=())._repr_html_().count("<th>") == len(answer.columns)


class _Parser(HTMLParser):
    """Collects the elements and the text of a page."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record an element."""
        self.elements.append(tag)

    def handle_data(self, data: str) -> None:
        """Record a text."""
        self.texts.append(data)


@given(st.text())
def test_titles_are_escaped_in_notebooks(title: str) -> None:
    """A title cannot add markup: its cell has no child elements and contains the exact title."""
    item = marquee.Item("<b>1</b>", title, None, ("<i>",), 0, None, types_pb2.Item())
    page = marquee.FoundItems((item,), "r1", "", pb.SearchItemsResponse())
    parser = _Parser()
    parser.feed(page._repr_html_())
    parser.close()
    assert set(parser.elements) == {"table", "thead", "tbody", "tr", "th", "td"}
    assert "".join(title.split()) in "".join("".join(parser.texts).split())


@pytest.mark.parametrize(
    "rows",
    [
        marquee.Recommendations,
        marquee.SimilarItems,
        marquee.PredictedRatings,
        marquee.FoundItems,
        marquee.FeedbackPage,
    ],
)
def test_every_sequence_names_its_columns(rows: Any) -> None:
    """Each column of `to_frame` is an attribute of the items."""
    (base,) = rows.__orig_bases__
    (item,) = base.__args__
    assert rows.columns
    for name in rows.columns:
        assert hasattr(item, name)
