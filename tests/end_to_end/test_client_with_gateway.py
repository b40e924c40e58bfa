"""The client and the command line against a real gateway with its backends."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner, Result

import marquee
from marquee.cli import main

# Generous deadline of a call in seconds, so that no result depends on the speed of the machine.
DEADLINE_S = 120.0


@pytest_asyncio.fixture
async def client(services: Any) -> AsyncIterator[marquee.AsyncClient]:
    """An asyncio client with the default settings, except for the deadline."""
    async with marquee.AsyncClient(
        services.address, timeout=DEADLINE_S, batch_timeout=DEADLINE_S
    ) as opened:
        yield opened


async def test_every_method_returns_a_complete_answer(
    client: marquee.AsyncClient, services: Any
) -> None:
    """Each method of the client returns a complete answer."""
    recommended = await client.recommend("u7", include_metadata=True, include_reasons=True)
    assert len(recommended) == 20
    assert recommended.subject_kind is marquee.SubjectKind.KNOWN
    assert recommended.source.release_id == services.first.release_id
    best = recommended[0]
    assert best.title is not None
    assert best.title.startswith("Film Number")
    shares = [reason for reason in best.reasons if isinstance(reason, marquee.ModelShare)]
    assert sum(share.contribution for share in shares) == pytest.approx(best.score, abs=1e-4)

    ids = [entry.item_id for entry in recommended]
    predicted = await client.predict_ratings("u7", [*ids, "nobody-knows"])
    assert [entry.item_id for entry in predicted] == [*ids, "nobody-knows"]
    assert [entry.stars for entry in predicted][-1] is None
    assert predicted[0].stars == pytest.approx(best.predicted_stars, abs=1e-4)

    assert len(await client.similar_items(best.item_id, page_size=5)) == 5
    found = await client.search_items("film number 7")
    assert "Film Number 7" in [item.title for item in found]
    assert await client.get_item(found[0].item_id) == found[0]
    status = await client.status()
    assert status.release is not None
    assert {backend.backend for backend in status.backends if backend.healthy} == {
        "cf",
        "inference",
    }


async def test_search_pages_contain_every_result_once(client: marquee.AsyncClient) -> None:
    """The pages of a search together have the same items as one large page."""
    whole = await client.search_items("film number 1", page_size=1000)
    pages = [page async for page in client.search_pages("film number 1", page_size=4)]
    assert len(pages) > 1
    assert [item for page in pages for item in page] == list(whole)


async def test_recommend_pages_contain_every_item_once(client: marquee.AsyncClient) -> None:
    """The pages of a list together have the same items as one large page."""
    whole = await client.recommend("u7", page_size=1000)
    pages = [page async for page in client.recommend_pages("u7", page_size=17)]
    assert [entry.item_id for page in pages for entry in page] == [e.item_id for e in whole]
    assert len({page.recommendation_id for page in pages}) == 1
    assert len(pages) > 2


async def test_a_batch_gives_the_answers_of_single_calls(client: marquee.AsyncClient) -> None:
    """Known users, unknown users and visitors get the same answers as in single calls."""
    visitor = marquee.Subject(ratings={"i1": 5.0, "i2": 1.0})
    subjects: list[str | marquee.Subject] = ["u1", "nobody", visitor]
    answers = [answer async for answer in client.batch_recommend(subjects, page_size=5)]
    assert sorted(answer.index for answer in answers) == [0, 1, 2]
    for answer in answers:
        single = await client.recommend(answer.subject, page_size=5)
        assert [e.item_id for e in answer.unwrap()] == [e.item_id for e in single]
        assert answer.unwrap().subject_kind is single.subject_kind


@pytest.mark.parametrize(
    ("arguments", "error", "reason", "metadata"),
    [
        ({"page_size": 1001}, marquee.InvalidArgument, "INVALID_FIELD", {"fields": "page_size"}),
        ({"model": "x"}, marquee.NotFound, "MODEL_NOT_FOUND", {"model": "x"}),
        ({"release_id": "x"}, marquee.NotFound, "RELEASE_NOT_FOUND", {"release_id": "x"}),
    ],
)
async def test_errors_of_the_gateway_have_their_class(
    client: marquee.AsyncClient,
    arguments: dict[str, Any],
    error: type[marquee.MarqueeError],
    reason: str,
    metadata: dict[str, str],
) -> None:
    """Class, reason, metadata and violations are those of the gateway's error."""
    with pytest.raises(error) as raised:
        await client.recommend("u7", **arguments)
    assert (raised.value.reason, raised.value.metadata) == (reason, metadata)
    fields = [violation.field for violation in raised.value.violations]
    assert fields == (["page_size"] if error is marquee.InvalidArgument else [])


async def test_a_page_token_of_another_request_is_a_failed_precondition(
    client: marquee.AsyncClient,
) -> None:
    """The error is `FailedPrecondition` rather than `InvalidArgument`."""
    first = await client.recommend("u7")
    with pytest.raises(marquee.FailedPrecondition) as raised:
        await client.recommend("u8", page_token=first.next_page_token)
    assert raised.value.reason == "PAGE_TOKEN_MISMATCH"


async def marquee_command(services: Any, *arguments: str) -> Result:
    """Run `marquee` in a thread, while the services run in the event loop of the test."""
    options = ["--address", services.address, "--timeout", str(DEADLINE_S)]
    return await asyncio.to_thread(CliRunner().invoke, main, [*options, *arguments])


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("recommend", "--user", "u7", "--reasons"), "Film Number"),
        (("recommend", "--rate", "i1=5", "--genre", "War"), "subject: visitor"),
        (("recommend", "--user", "nobody"), "subject: cold start"),
        (("batch", "u1", "u2"), "user u2"),
        (("predict", "--user", "u7", "i1", "i2"), "stars"),
        (("similar", "--item", "i1"), "Film Number"),
        (("search", "number", "7"), "Film Number 7"),
        (("item", "i7"), "Film Number"),
        (("status",), "toy(seed=0)"),
    ],
)
async def test_every_command_prints_an_answer(
    services: Any, arguments: tuple[str, ...], expected: str
) -> None:
    """Each command prints a table, and valid JSON with `--json`."""
    result = await marquee_command(services, *arguments)
    assert result.exit_code == 0, result.output
    assert expected in result.stdout
    as_json = await marquee_command(services, *arguments, "--json")
    assert as_json.exit_code == 0, as_json.output
    documents = as_json.stdout.splitlines() if arguments[0] == "batch" else [as_json.stdout]
    assert all(isinstance(json.loads(document), dict) for document in documents)


async def test_a_degraded_answer_is_marked(services: Any) -> None:
    """Without a backend, the answer is printed and says which backend is missing."""
    await services.scoring["inference"].stop(0)
    result = await marquee_command(services, "recommend", "--user", "u7")
    assert result.exit_code == 0, result.output
    assert "DEGRADED: inference did not answer" in result.stdout
