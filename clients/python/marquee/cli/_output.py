"""Formats results as text for terminals."""

from __future__ import annotations

from collections.abc import Sequence

import click

import marquee
from marquee.cli.table import printable, render

_DEGRADED = {
    "UNAVAILABLE": "did not answer",
    "TIMEOUT": "did not answer in time",
    "RELEASE_MISSING": "has not loaded the release",
    "OVERLOADED": "is overloaded",
}

_NEGLIGIBLE_SHARE = 0.0005  # contributions below this would be displayed as zero


def recommendations(answer: marquee.Recommendations) -> str:
    """Formats a page of recommendations, followed by the reasons if there are any."""
    # Releases of implicit feedback do not predict stars.
    has_stars = any(entry.predicted_stars is not None for entry in answer)
    table = render(
        ("#", "item", "title", "year", "genres", *["stars"] * has_stars, "score", "proposed by"),
        [
            (
                str(entry.rank),
                entry.item_id,
                entry.title or "",
                str(entry.year or ""),
                ", ".join(entry.genres),
                *([_stars(entry.predicted_stars)] if has_stars else []),
                f"{entry.score:.3f}",
                ", ".join(entry.proposed_by),
            )
            for entry in answer
        ],
        ">><><" + ">" * has_stars + "><",
        droppable=("proposed by", "genres", "score", "year"),
    )
    lines = [table if answer.items else "No items match."]
    lines += [_reasons(entry) for entry in answer if entry.reasons]
    kind = answer.subject_kind.replace("_", " ").lower()
    lines += [f"\nsubject: {kind}", *_footer(answer.source, answer.unknown_item_ids)]
    if answer.next_page_token:
        lines.append(f"next page: --page-token {printable(answer.next_page_token)}")
    return "\n".join(lines)


def unknown_genres(unknown: Sequence[str], known: Sequence[str]) -> str:
    """Formats the unknown genres of a filter and the known genres."""
    return printable(f"unknown genres: {', '.join(unknown)}; known genres: {', '.join(known)}")


def _stars(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def predicted_ratings(answer: marquee.PredictedRatings) -> str:
    """Formats predicted ratings."""
    table = render(
        ("item", "stars"),
        [
            (entry.item_id, "unknown" if entry.stars is None else f"{entry.stars:.2f}")
            for entry in answer
        ],
        ">>",
    )
    footer = _footer(answer.source, answer.unknown_item_ids, of_stars=True)
    return "\n".join([table, "", *footer])


def similar_items(answer: marquee.SimilarItems) -> str:
    """Formats similar items."""
    table = render(
        ("#", "item", "title", "year", "genres", "similarity", "proposed by"),
        [
            (
                str(entry.rank),
                entry.item_id,
                entry.title or "",
                str(entry.year or ""),
                ", ".join(entry.genres),
                f"{entry.similarity:.3f}",
                ", ".join(entry.proposed_by),
            )
            for entry in answer
        ],
        ">><><><",
        droppable=("proposed by", "genres", "year"),
    )
    return "\n".join(
        [
            table if answer.items else "No items match.",
            "",
            *_footer(answer.source, answer.unknown_item_ids),
        ]
    )


def items(found: Sequence[marquee.Item]) -> str:
    """Formats items of the catalogue."""
    return render(
        ("item", "title", "year", "genres", "ratings", "mean stars"),
        [
            (
                item.item_id,
                item.title,
                str(item.year or ""),
                ", ".join(item.genres),
                f"{item.rating_count:,}",
                _stars(item.mean_stars),
            )
            for item in found
        ],
        "><><>>",
        droppable=("genres", "ratings", "mean stars"),
    )


def item(found: marquee.Item) -> str:
    """Formats one item of the catalogue, with its attributes."""
    if not found.attributes:
        return items([found])
    rows = [(name, " ".join(value.split())) for name, value in found.attributes.items()]
    return f"{items([found])}\n\n{render(('attribute', 'value'), rows, '<<')}"


def found_items(answer: marquee.FoundItems) -> str:
    """Formats a page of search results."""
    lines = [items(answer.items) if answer.items else "Nothing found."]
    lines += ["", f"release: {printable(answer.release_id)}"]
    if answer.next_page_token:
        lines.append(f"next page: --page-token {printable(answer.next_page_token)}")
    return "\n".join(lines)


def recorded(answer: marquee.RecordedFeedback) -> str:
    """Formats the result of recording events."""
    parts = [f"{answer.recorded_count} recorded"]
    if answer.duplicate_count:
        parts.append(f"{answer.duplicate_count} already recorded")
    if answer.ignored_count:
        parts.append(f"{answer.ignored_count} ignored, because the user has since been forgotten")
    return ", ".join(parts)


def deleted(answer: marquee.DeletedFeedback) -> str:
    """Formats the result of a deletion."""
    return f"{answer.deleted_count} deleted"


def feedback_page(answer: marquee.FeedbackPage) -> str:
    """Formats a page of events."""
    rows = [
        (
            event.time.isoformat(timespec="seconds"),
            event.item_id,
            event.kind.lower(),
            "" if event.stars is None else f"{event.stars:g}",
            "" if event.share_watched is None else f"{event.share_watched:.0%}",
            event.event_id,
        )
        for event in answer
    ]
    headers = ("time", "item", "kind", "stars", "watched", "key")
    lines = [render(headers, rows, "<><>><") if rows else "No events."]
    if answer.next_page_token:
        lines.append(f"next page: --page-token {printable(answer.next_page_token)}")
    return "\n".join(lines)


def _reasons(entry: marquee.Recommendation) -> str:
    lines = [f"\n#{entry.rank} {printable(entry.title or entry.item_id)}"]
    for reason in entry.reasons:
        match reason:
            case marquee.ModelShare() if abs(reason.contribution) < _NEGLIGIBLE_SHARE:
                continue
            case marquee.ModelShare():
                text = (
                    f"{reason.contribution:+.3f} by {reason.model} (output {reason.output:.3f})"
                    + _decomposition(reason)
                )
            case marquee.RatedItem():
                amount = f"{reason.score_contribution:+.3f} by {reason.model}"
                if not reason.model:  # from an older server
                    amount = f"{reason.contribution:+.3f} stars in item CF"
                title = reason.title or reason.item_id
                stars = "star" if reason.stars == 1.0 else "stars"
                given = f"the user gave {title} {reason.stars:g} {stars}"
                if reason.model and entry.predicted_stars is None:
                    # With implicit feedback, the strength of an interaction, such as play counts.
                    given = f"the user's {title} with strength {reason.stars:g}"
                text = f"{amount}: {given} (similarity {reason.similarity:.2f})"
            case marquee.SimilarUsers():
                amount = f"{reason.score_contribution:+.3f} by {reason.model}"
                if not reason.model:  # from an older server
                    amount = f"{reason.contribution:+.3f} stars in user CF"
                text = (
                    f"{amount}: {reason.count} similar users gave it {reason.mean_stars:.2f} stars"
                )
        lines.append(f"   {printable(text)}")
    return "\n".join(lines)


def _decomposition(share: marquee.ModelShare) -> str:
    match share.decomposition:
        case marquee.Decomposition.RATED_ITEMS:
            return f", of which {share.explained:+.3f} by rated items"
        case marquee.Decomposition.SIMILAR_USERS:
            return f", of which {share.explained:+.3f} by similar users"
        case marquee.Decomposition.OPAQUE:
            return ", which cannot be decomposed"
    return ""


def _footer(
    source: marquee.AnswerSource, unknown_item_ids: Sequence[str], *, of_stars: bool = False
) -> list[str]:
    """Returns the lines below a table: release, models, degradation and ignored ids.

    Args:
        source: The release and models that the answer comes from.
        unknown_item_ids: The ignored ids.
        of_stars: Whether the answer consists of predicted stars. If so, the models are listed with
            their rating weights instead of their ranking weights.
    """
    weights = [
        (entry.model, entry.rating_weight if of_stars else entry.ranking_weight)
        for entry in source.models
    ]
    models = ", ".join(f"{model} {weight:.3g}" for model, weight in weights if weight)
    lines = [
        printable(f"release: {source.release_id}, in {source.server_time_us / 1000:.1f} ms"),
        printable(f"models: {models or 'none'}"),
    ]
    if source.experiment:
        lines.append(printable(f"experiment: {source.experiment}, arm {source.arm}"))
    if source.abstaining_models:
        lines.append(printable(f"abstaining: {', '.join(source.abstaining_models)}"))
    if source.degraded:
        style = click.style("DEGRADED", fg="yellow", bold=True)
        lines.append(f"{style}: {_degraded(source)}")
    if unknown_item_ids:
        lines.append(printable(f"unknown items, ignored: {', '.join(unknown_item_ids)}"))
    return lines


def _degraded(source: marquee.AnswerSource) -> str:
    """Describes why an answer is degraded."""
    reasons = []
    for reason in source.degraded_reasons:
        backend, _, cause = reason.partition("_")
        reasons.append(f"{backend.lower()} {_DEGRADED[cause]}" if cause in _DEGRADED else reason)
    return ", ".join(reasons) or "part of the ensemble is missing"
