"""Lists as Parquet tables, with a row for each recommended item and the source in the metadata.

The first columns are the same as those of `marquee batch --out FILE.parquet` with a gateway.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from google.protobuf.json_format import MessageToDict, MessageToJson

from marquee.v1 import recommender_service_pb2 as pb
from marquee_core.catalogue import Catalogue
from marquee_services.gateway.answering.messages import source_message
from marquee_services.gateway.experiments.route import Route
from marquee_services.gateway.releases.release import GatewayRelease
from marquee_services.lists.request import ListRequest
from marquee_services.lists.user_list import UserError, UserList

METADATA = b"marquee"
"""The key of the metadata, a JSON object."""

_TEXTS = pa.list_(pa.string())
SCHEMA = pa.schema(
    [
        ("user_id", pa.string()),
        ("rank", pa.int32()),
        ("item_id", pa.string()),
        ("title", pa.string()),
        ("year", pa.int32()),
        ("genres", _TEXTS),
        ("score", pa.float64()),
        ("predicted_stars", pa.float64()),
        ("proposed_by", _TEXTS),
        ("abstaining_models", _TEXTS),
    ]
)
"""The columns. With reasons, there is another one, `reasons`: JSON texts of the API's Reasons."""

REASONS = pa.field("reasons", _TEXTS)


def source(release: GatewayRelease, request: ListRequest) -> dict[str, Any]:
    """Returns the source of the lists, an AnswerSource of the API as JSON values."""
    model = request.recommend_options.model
    if model:
        blends = release.ensemble.single_model(model, model in release.stars_models)
    else:
        blends = release.ensemble.by_backends[release.backends]
    found: dict[str, Any] = MessageToDict(
        source_message(Route(release), blends), preserving_proto_field_name=True
    )
    return found


def to_parquet(
    lists: Sequence[UserList], catalogue: Catalogue, metadata: Mapping[str, Any], reasons: bool
) -> bytes:
    """Returns lists, in their order, as a Parquet file with one row group.

    The same lists always give the same bytes, and every page of the file has a checksum.

    Args:
        lists: The lists.
        catalogue: The items' metadata.
        metadata: The metadata of the file, as JSON values.
        reasons: Whether to add a column of reasons.
    """
    schema = SCHEMA.append(REASONS) if reasons else SCHEMA
    columns = _columns(lists, catalogue)
    if reasons:
        columns["reasons"] = [_reasons(row) for one in lists for row in one.reasons]
    arrays = [pa.array(columns[field.name], field.type) for field in schema]
    text = json.dumps(metadata, sort_keys=True, ensure_ascii=False)
    table = pa.Table.from_arrays(arrays, schema=schema.with_metadata({METADATA: text.encode()}))
    stream = io.BytesIO()
    pq.write_table(
        table,
        stream,
        compression="zstd",
        row_group_size=max(1, table.num_rows),
        write_page_checksum=True,
    )
    return stream.getvalue()


def _columns(lists: Sequence[UserList], catalogue: Catalogue) -> dict[str, Any]:
    counts = [len(one.items) for one in lists]
    items = np.concatenate([np.empty(0, np.int32), *(one.items for one in lists)])
    # The texts of each distinct item are decoded only once.
    distinct, positions = np.unique(items, return_inverse=True)
    indexes = pa.array(positions.astype(np.int32))
    years = catalogue.years[distinct].astype(np.int32)
    texts = {
        "item_id": pa.array(catalogue.items.ids(distinct), pa.string()),
        "title": pa.array([catalogue.title(item) for item in distinct.tolist()], pa.string()),
        "year": pa.array(years, mask=years == 0),
        "genres": pa.array([catalogue.item_genres(item) for item in distinct.tolist()], _TEXTS),
    }
    users = pa.array(np.repeat(np.arange(len(lists), dtype=np.int32), counts))
    has_stars = any(one.stars is not None for one in lists)
    return {
        "user_id": pa.array([one.user_id for one in lists], pa.string()).take(users),
        "rank": np.concatenate(
            [np.arange(1, count + 1, dtype=np.int32) for count in counts] or [np.empty(0, np.int32)]
        ),
        **{name: values.take(indexes) for name, values in texts.items()},
        "score": np.concatenate([np.empty(0), *(one.scores for one in lists)]),
        "predicted_stars": np.concatenate(
            [np.empty(0), *(one.stars for one in lists if one.stars is not None)]
        )
        if has_stars
        else pa.nulls(len(items), pa.float64()),
        "proposed_by": _texts(names for one in lists for names in one.proposed_by),
        "abstaining_models": pa.array([list(one.abstaining) for one in lists], _TEXTS).take(users),
    }


def _texts(rows: Iterable[Sequence[str]]) -> pa.Array:
    """Converts lists of texts, of which few are distinct, to an array."""
    position_of: dict[tuple[str, ...], int] = {}
    positions = [position_of.setdefault(tuple(row), len(position_of)) for row in rows]
    return pa.array([list(row) for row in position_of], _TEXTS).take(
        pa.array(positions, pa.int32())
    )


def _reasons(reasons: Sequence[pb.Reason]) -> list[str]:
    return [
        MessageToJson(reason, preserving_proto_field_name=True, indent=None) for reason in reasons
    ]


def read_metadata(content: bytes) -> dict[str, Any] | None:
    """Reads the metadata of a file, and verifies the checksums of all its pages.

    Returns:
        The metadata; None if the file is damaged or was not written by `to_parquet`.
    """
    try:
        with pq.ParquetFile(io.BytesIO(content), page_checksum_verification=True) as file:
            file.read()
            found = json.loads((file.schema_arrow.metadata or {})[METADATA])
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def errors_as_json(errors: Sequence[UserError]) -> list[list[str]]:
    """Returns the errors of users as JSON values."""
    return [[error.user_id, error.reason, error.message] for error in errors]
