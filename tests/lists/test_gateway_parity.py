"""Lists that are computed offline equal the answers of a gateway."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import grpc
import pyarrow.parquet as pq
import pytest
from google.protobuf.json_format import MessageToDict, Parse

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_services.lists.blocks import BlockRanker
from marquee_services.lists.output import Output
from marquee_services.lists.release import load_release
from marquee_services.lists.run import cut_parts, write_lists
from marquee_services.lists.table import METADATA
from toy.lists import list_request, run_here
from toy.release import USERS
from toy.services import BackgroundLoop, Services
from toy.waiting import WAIT_S

Options = pb.RecommendOptions
Filter = types_pb2.ItemFilter


def written(folder: Path) -> tuple[dict[str, list[dict[str, Any]]], dict[str, Any]]:
    """Return the rows of the only part by user, and its metadata."""
    (path,) = folder.glob("*.parquet")
    table = pq.read_table(path)
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in table.to_pylist():
        rows.setdefault(row["user_id"], []).append(row)
    return rows, json.loads(table.schema.metadata[METADATA])


def compare(rows: list[dict[str, Any]], answer: pb.RecommendResponse) -> None:
    """Compare a user's rows with the gateway's answer, item by item.

    Single-precision sums depend on how many users were scored together, also in a gateway.
    """
    assert [row["item_id"] for row in rows] == [item.item_id for item in answer.items]
    for row, item in zip(rows, answer.items, strict=True):
        assert row["rank"] == item.rank
        assert row["score"] == pytest.approx(item.score, rel=1e-5, abs=1e-5)
        assert row["predicted_stars"] == pytest.approx(item.predicted_stars, rel=1e-5)
        assert row["proposed_by"] == list(item.proposed_by)
        assert row["abstaining_models"] == list(answer.source.abstaining_models)
        assert row["title"] == item.metadata.title
        assert (row["year"] or 0) == item.metadata.year
        assert row["genres"] == list(item.metadata.genres)
        reasons = [Parse(text, pb.Reason()) for text in row.get("reasons", [])]
        assert len(reasons) == len(item.reasons)
        for found, expected in zip(reasons, item.reasons, strict=True):
            assert found.WhichOneof("evidence") == expected.WhichOneof("evidence")
            assert found.model_share.model == expected.model_share.model
            assert found.rated_item.item_id == expected.rated_item.item_id


def slow(*values: Any) -> Any:
    """Return a slow case, of which other cases cover the essentials."""
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("name", "options", "size", "in_blocks"),
    [
        ("defaults", Options(), 0, True),
        ("short", Options(filter=Filter(genres_any=["War"], year_min=1960)), 7, True),
        slow("only", Options(filter=Filter(allowed_item_ids=["i1", "i2", "x"])), 5, True),
        slow("all seen", Options(include_seen=True), 120, True),
        ("minimum of stars", Options(min_predicted_stars=3.5), 10, False),
        slow("diversity", Options(diversity=0.5), 10, False),
        ("one model", Options(model="mf"), 10, False),
        ("reasons", Options(include_reasons=True), 3, False),
    ],
)
def test_lists_equal_the_answers_of_a_gateway(
    background_services: Services,
    background_loop: BackgroundLoop,
    tmp_path: Path,
    name: str,
    options: pb.RecommendOptions,
    size: int,
    in_blocks: bool,
) -> None:
    """Items, order, scores, stars, proposers and sources of every user are equal.

    The gateway and its backends answer over sockets. One user is unknown, and one id is too long.
    """
    release_id = background_services.first.release_id
    options.release_id = release_id
    request = list_request(
        background_services.store.url, release_id, tmp_path / "cache", options, page_size=size
    )
    request.check()
    assert BlockRanker.can_rank(load_release(request), request) is in_blocks
    users = [*(f"u{n}" for n in range(0, USERS, 2)), "nobody", "x" * 300]
    summary = write_lists(
        request,
        Output.parse(str(tmp_path / "lists")),
        cut_parts(len(users), users, 100),
        run_here,
        lambda _: None,
    )
    assert [(error.user_id, error.reason) for error in summary.errors] == [
        ("x" * 300, "INVALID_FIELD")
    ]
    assert (summary.users, summary.computed, summary.parts) == (len(users), len(users), 1)
    rows, metadata = written(tmp_path / "lists")

    async def answers() -> list[pb.RecommendResponse]:
        options.include_metadata = True
        async with grpc.aio.insecure_channel(background_services.address) as channel:
            stub = RecommenderServiceStub(channel)
            return [
                await stub.Recommend(
                    pb.RecommendRequest(
                        subject=types_pb2.Subject(user_id=user), page_size=size, options=options
                    ),
                    timeout=WAIT_S,
                )
                for user in users[:-1]
            ]

    answered_by_gateway = background_loop.run(answers())
    for user, answer in zip(users, answered_by_gateway, strict=False):
        compare(rows.get(user, []), answer)
    answered = answered_by_gateway[0].source
    answered.ClearField("server_time_us")
    assert metadata["source"] == MessageToDict(answered, preserving_proto_field_name=True)
    assert metadata["items"] == sum(map(len, rows.values())) > 0


async def test_lists_of_large_catalogues_equal_those_of_a_gateway(
    services: Services, tmp_path: Path
) -> None:
    """Above the dense limit, models retrieve candidates first."""
    gateway = await services.start_gateway(dense_limit=50, candidates=20)
    await services.until_full(gateway)
    release_id = services.first.release_id
    request = list_request(
        services.store.url,
        release_id,
        tmp_path / "cache",
        page_size=30,
        dense_limit=50,
        candidates=20,
    )
    await asyncio.to_thread(
        write_lists,
        request,
        Output.parse(str(tmp_path / "lists")),
        cut_parts(USERS, None, 100),
        run_here,
        lambda _: None,
    )
    rows, _ = written(tmp_path / "lists")
    assert len(rows) == USERS
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        stub = RecommenderServiceStub(channel)
        for user in list(rows)[:10]:
            answer = await stub.Recommend(
                pb.RecommendRequest(
                    subject=types_pb2.Subject(user_id=user),
                    page_size=30,
                    options=Options(include_metadata=True),
                ),
                timeout=WAIT_S,
            )
            compare(rows[user], answer)
    await gateway.stop(0.0)
