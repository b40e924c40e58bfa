"""`marquee.testing.FakeGateway`, with which users of the client test their own programs."""

from __future__ import annotations

import pytest

import marquee
from marquee.testing import FakeGateway
from marquee.v1 import recommender_service_pb2 as pb

# A generous deadline in seconds, so that no result depends on the speed of the machine.
DEADLINE_S = 60.0


def test_a_behaviour_is_a_response_an_error_or_a_function() -> None:
    """A call is answered by the behaviour that was set last, whatever its kind."""
    with FakeGateway() as gateway, marquee.Client(gateway.address, timeout=DEADLINE_S) as client:
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
    """A misspelt RPC name is an error, because the behaviour would never be used."""
    with FakeGateway() as gateway, pytest.raises(ValueError, match="unknown RPC 'recommend'"):
        gateway.on("recommend", ())


def test_two_gateways_cannot_share_a_port() -> None:
    """A port in use is an error rather than a second listener that receives half of the calls."""
    with FakeGateway() as gateway, pytest.raises(RuntimeError):
        FakeGateway(gateway.address)


def test_an_exception_in_a_behaviour_fails_the_call() -> None:
    """An exception in a behaviour fails the call with `Internal`."""

    def broken(request: pb.GetItemRequest) -> pb.GetItemResponse:
        raise KeyError(request.item_id)

    with FakeGateway() as gateway, marquee.Client(gateway.address, timeout=DEADLINE_S) as client:
        gateway.on("GetItem", broken)
        with pytest.raises(marquee.Internal):
            client.get_item("1")
