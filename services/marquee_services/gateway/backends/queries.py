"""Encodes the users in a request to a backend."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from marquee.v1 import scoring_service_pb2 as pb
from marquee_services.scoring.plan import Query
from marquee_services.server.wire import pack_bits, pack_floats, pack_ints


def add_users(
    request: pb.RankItemsRequest | pb.ScoreItemsRequest, queries: Iterable[Query]
) -> None:
    """Adds the users to a request, in place because a separate message would be copied."""
    for query in queries:
        request.users.add(**_fields(query))


def user_message(query: Query) -> pb.UserQuery:
    """Encodes a query as a `UserQuery`."""
    return pb.UserQuery(**_fields(query))


def _fields(query: Query) -> dict[str, Any]:
    """Returns the fields of a `UserQuery` that are set."""
    fields: dict[str, Any] = {"new_only": query.new_only}
    if query.user >= 0:
        fields["user_index"] = query.user
    if len(query.items):
        fields["rated_items"] = pack_ints(query.items)
        fields["ratings"] = pack_floats(query.ratings)
    if query.candidates is not None:
        fields["candidates"] = pack_ints(query.candidates)
    if query.eligible is not None:
        fields["eligible"] = pack_bits(query.eligible)
    return fields
