"""Searches by title and look-ups of single items."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import grpc
import pytest

from gateway.calls import TIMEOUT_S, error_of
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_core.arrays import Int32
from marquee_services.gateway.answering import lookups
from marquee_services.gateway.releases.titles import TitleIndex, TitleQuery


async def test_search_matches_words_and_is_paginated(stub: Any) -> None:
    """The last word may be a prefix, and the pages together contain every match once."""
    request = pb.SearchItemsRequest(query="number FÍLM 11", page_size=4)
    found = []
    while True:
        answer = await stub.SearchItems(request, timeout=TIMEOUT_S)
        found += [item.title for item in answer.items]
        if not answer.next_page_token:
            break
        request.page_token = answer.next_page_token
    expected = {f"Film Number {n}" for n in range(120) if str(n).startswith("11")}
    assert len(found) == len(expected)
    assert set(found) == expected
    assert found[0] == "Film Number 11"


async def test_get_item_returns_metadata_and_statistics(stub: Any) -> None:
    """The item has its metadata and rating statistics, and an unknown id is an error."""
    answer = await stub.GetItem(pb.GetItemRequest(item_id="i11"), timeout=TIMEOUT_S)
    assert answer.item.genres
    assert answer.item.rating_count > 0
    code, reason, _ = await error_of(
        stub.GetItem(pb.GetItemRequest(item_id="gone"), timeout=TIMEOUT_S)
    )
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "ITEM_NOT_FOUND")


async def test_searches_do_not_block_other_calls(
    services: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During large searches, other calls are answered; further searches are refused or time out."""
    may_end = threading.Event()
    begun = threading.Semaphore(0)
    real = TitleIndex.search

    def slow(self: TitleIndex, query: TitleQuery, start: int, end: int) -> tuple[Int32, int]:
        begun.release()
        assert may_end.wait(TIMEOUT_S)
        return real(self, query, start, end)

    monkeypatch.setattr(lookups, "_QUICK_COST", -1)
    monkeypatch.setattr(TitleIndex, "search", slow)
    gateway = await services.start_gateway(max_searches=4)
    await services.until_full(gateway)
    request = pb.SearchItemsRequest(query="film")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.bound.port}") as channel:
        stub: Any = RecommenderServiceStub(channel)
        working = [stub.SearchItems(request, timeout=TIMEOUT_S) for _ in range(2)]
        for _ in working:
            assert await asyncio.to_thread(begun.acquire, timeout=TIMEOUT_S)
        answer = await stub.GetItem(pb.GetItemRequest(item_id="i11"), timeout=TIMEOUT_S)
        assert answer.item.item_id == "i11"
        # All threads are busy, so a third search waits until its deadline.
        with pytest.raises(grpc.aio.AioRpcError) as expired:
            await stub.SearchItems(request, timeout=0.2)
        assert expired.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        # Of three more, at least one waits and at least one is refused: the server may not yet have
        # noticed that the third search has expired.
        more = [asyncio.ensure_future(stub.SearchItems(request, timeout=TIMEOUT_S)) for _ in "123"]
        ended, waiting = await asyncio.wait(more, return_when=asyncio.FIRST_COMPLETED)
        assert waiting
        may_end.set()
        for call in working:
            assert len((await call).items) == 20
        answers = await asyncio.gather(*more, return_exceptions=True)
    refused = [error for error in answers if isinstance(error, grpc.aio.AioRpcError)]
    assert len(ended) <= len(refused) < len(more)
    assert {error.code() for error in refused} == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert "limit of 4" in str(refused[0].details())
    await gateway.stop(0.5)
