"""Requests for the gateway's tests, and the details of their errors."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeAlias

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2

Subject: TypeAlias = types_pb2.Subject
Rating: TypeAlias = types_pb2.Rating
Filter: TypeAlias = types_pb2.ItemFilter

# The deadline of calls whose timing is not tested: only a call that hangs reaches it.
TIMEOUT_S = 60.0


def request_for(user: str = "u7", *, page_size: int = 0, **options: Any) -> pb.RecommendRequest:
    """Return a request for a user; the options are fields of RecommendOptions."""
    return pb.RecommendRequest(
        subject=Subject(user_id=user), page_size=page_size, options=pb.RecommendOptions(**options)
    )


async def error_of(call: Awaitable[Any]) -> tuple[grpc.StatusCode, str, list[str]]:
    """Return the status code, the reason and the violated fields of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    trailers = dict(caught.value.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info, fields = error_details_pb2.ErrorInfo(), []
    for detail in status.details:
        bad_request = error_details_pb2.BadRequest()
        if detail.Unpack(bad_request):
            fields = [violation.field for violation in bad_request.field_violations]
        detail.Unpack(info)
    assert info.domain == "marquee.v1"
    assert status.code == caught.value.code().value[0]
    return caught.value.code(), info.reason, fields
