"""Searches by title and look-ups of single items."""

from __future__ import annotations

from typing import Any

import grpc

from gateway.calls import TIMEOUT_S, error_of
from marquee.v1 import recommender_service_pb2 as pb


async def test_search_finds_titles_by_words_and_walks_pages(stub: Any) -> None:
    """The last word may be a prefix; the pages hold every match once."""
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


async def test_get_item_answers_metadata_and_statistics(stub: Any) -> None:
    """An unknown id is an error."""
    answer = await stub.GetItem(pb.GetItemRequest(item_id="i11"), timeout=TIMEOUT_S)
    assert answer.item.genres
    assert answer.item.rating_count > 0
    code, reason, _ = await error_of(
        stub.GetItem(pb.GetItemRequest(item_id="gone"), timeout=TIMEOUT_S)
    )
    assert (code, reason) == (grpc.StatusCode.NOT_FOUND, "ITEM_NOT_FOUND")
