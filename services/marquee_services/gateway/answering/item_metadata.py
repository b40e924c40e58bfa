"""The metadata of recommended items, serialised only once for each item of a release."""

from __future__ import annotations

from marquee.v1 import recommender_service_pb2 as pb
from marquee_core.arrays import Int32
from marquee_services.gateway.answering.messages import item_message
from marquee_services.gateway.caching.message_bytes import length_delimited_tag, varint
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.server.time_slice import TimeSlice

_METADATA = length_delimited_tag(pb.RecommendedItem, "metadata")
# An item takes about 200 bytes of memory.
_MAX_CACHED = 16_384


async def serialized_metadata(release: GatewayRelease, items: Int32) -> list[bytes]:
    """Returns the serialised field `metadata` of recommended items.

    Args:
        release: The release of the items.
        items: The items' indexes (int32, n).
    """
    cached, time_slice = release.metadata_bytes, TimeSlice()
    found = []
    for index in items.tolist():
        field = cached.get(index)
        if field is None:
            content = item_message(release, index).SerializeToString()
            field = b"".join((_METADATA, varint(len(content)), content))
            if len(cached) >= _MAX_CACHED:
                cached.clear()
            cached[index] = field
            await time_slice.give_way()
        found.append(field)
    return found
