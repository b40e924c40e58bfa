"""Text that `marquee releases` prints about a release, and about deleted releases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from marquee.cli.table import printable, render
from marquee_core.release.manifest import IMPLICIT, Manifest
from marquee_core.service_names import GATEWAY

if TYPE_CHECKING:
    from marquee_core.release.pruning import Pruned

_METRICS = ("test_mse", "test_mae", "ndcg@10", "recall@10", "coverage@10")
_SHOWN_GENRES = 8
_MIB = 1 << 20


def summary(manifest: Manifest) -> str:
    """Returns the data, the evaluation and the models of a release, ending with a line break."""
    data, measured = manifest.data, manifest.evaluation
    size = sum(entry.size for entry in manifest.files.values())
    genres = ", ".join(data.genres[:_SHOWN_GENRES])
    if len(data.genres) > _SHOWN_GENRES:
        genres += f" and {len(data.genres) - _SHOWN_GENRES} more"
    on = "refitted on all ratings" if data.refitted else "as they were evaluated"
    facts = {
        "release": manifest.release_id,
        "published": manifest.published_at,
        "data": data.source,
        "feedback": data.feedback,
        "scale": "" if data.feedback == IMPLICIT else f"{data.rating_min:g} to {data.rating_max:g}",
        "serves": f"{data.rating_count:,} ratings by {data.user_count:,} users of "
        f"{data.item_count:,} items",
        "models": f"{len(manifest.models)}, {on}",
        "measured by": f"{measured.get('split', '')}, {measured.get('test_ratings', 0):,} test "
        "ratings",
        "genres": genres,
        "feedback log": f"up to position {manifest.feedback_position:,}"
        if manifest.feedback_mark
        else "",
        "files": f"{len(manifest.files)}, {size / _MIB:,.1f} MiB",
        "manifest": f"schema {manifest.schema_version}; --json shows all of it",
    }
    width = max(len(name) for name in facts)
    lines = [f"{name:<{width}}  {printable(text)}" for name, text in facts.items() if text]
    ensemble = measured.get("ensemble_metrics", {})
    rows = [
        [m.name, m.backend, m.version, *(_number(m.metrics.get(name)) for name in _METRICS)]
        for m in manifest.models
    ]
    rows.append(["ensemble", GATEWAY, "", *(_number(ensemble.get(name)) for name in _METRICS)])
    table = render(
        ["model", "service", "version", *_METRICS],
        rows,
        "lll" + "r" * len(_METRICS),
        droppable=("version", "coverage@10", "test_mae", "recall@10", "service"),
    )
    return "\n".join([*lines, "", table, ""])


def pruning_lines(found: Pruned, dry_run: bool) -> Iterator[str]:
    """Yields lines about the releases that were deleted or kept, and why.

    Args:
        found: The result of pruning.
        dry_run: Whether nothing was actually deleted.
    """
    done = "would be deleted" if dry_run else "deleted"
    for release_id, reason in found.kept.items():
        yield f"{release_id} kept: {reason}"
    for release_id in found.releases:
        yield f"{release_id} {done}"
    kept = found.newest + len(found.kept)
    text = f"{len(found.releases)} of {kept + len(found.releases)} releases {done}; kept: the "
    text += f"newest {found.newest}" if found.newest > 1 else "newest"
    if found.kept:
        text += f", and {len(found.kept)} older because they are needed"
    yield text
    if found.leftovers:
        yield f"{found.leftovers} unfinished files and folders removed"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
