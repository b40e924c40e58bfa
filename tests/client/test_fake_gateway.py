"""The gateway that ships for the tests of callers."""

from __future__ import annotations

import pytest

import marquee
from marquee.testing import FakeGateway
from marquee.v1 import recommender_service_pb2 as pb


def test_a_behaviour_is_a_response_an_error_or_a_function() -> None:
    """Each kind of behaviour answers as it says, and the newest counts."""
    with FakeGateway() as gateway, marquee.Client(gateway.address, timeout=10) as client:
        assert client.search_items("x").items == ()
        gateway.on("SearchItems", pb.SearchItemsResponse(release_id="r1"))
        assert client.search_items("x").release_id == "r1"
        gateway.on("SearchItems", marquee.NotFound("none"))
        with pytest.raises(marquee.NotFound):
            client.search_items("x")
        gateway.on("SearchItems", lambda request: pb.SearchItemsResponse(release_id=request.query))
        assert client.search_items("x").release_id == "x"
        assert [call.method for call in gateway.calls] == ["SearchItems"] * 4


def test_a_method_that_does_not_exist_is_refused() -> None:
    """A misspelt RPC would never be called."""
    with FakeGateway() as gateway, pytest.raises(ValueError, match="no RPC 'recommend'"):
        gateway.on("recommend", ())


def test_two_gateways_cannot_share_a_port() -> None:
    """A port in use is an error, not a second listener that takes half of the calls."""
    with FakeGateway() as gateway, pytest.raises(RuntimeError):
        FakeGateway(gateway.address)


def test_a_defect_of_a_behaviour_is_an_error_of_the_call() -> None:
    """A function that breaks shows in the caller's test as a failed call."""

    def broken(request: pb.GetItemRequest) -> pb.GetItemResponse:
        raise KeyError(request.item_id)

    with FakeGateway() as gateway, marquee.Client(gateway.address, timeout=10) as client:
        gateway.on("GetItem", broken)
        with pytest.raises(marquee.Internal):
            client.get_item("1")
