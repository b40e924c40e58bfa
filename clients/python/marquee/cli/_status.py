"""Formats the state of a gateway as text for terminals."""

from __future__ import annotations

from collections.abc import Sequence

import click

import marquee
from marquee.cli.table import printable, render


def status(state: marquee.Status) -> str:
    """Formats the state of a gateway."""
    lines = [f"gateway {printable(state.server_version)}"]
    # If no release is in service, there may be no promoted release either.
    pending = "The promoted release is not" if state.release else "No release is"
    if state.pending_release_reason:
        lines.append(
            click.style(f"{pending} in service: ", fg="yellow")
            + printable(state.pending_release_reason)
        )
    if state.store_error:
        lines.append(
            click.style("The release store cannot be read: ", fg="yellow")
            + printable(state.store_error)
        )
    if state.release is None and not state.pending_release_reason:
        lines.append("No release is in service.")
    if state.release is not None:
        lines += ["", _release(state.release)]
    lines += ["", _backends(state.backends)]
    if state.feedback is not None:
        lines += ["", _feedback(state.feedback)]
    if state.experiment is not None:
        lines += ["", _experiment(state.experiment)]
    lines += ["", f"loaded releases: {printable(', '.join(state.loaded_release_ids) or 'none')}"]
    return "\n".join(lines)


def _release(release: marquee.ReleaseStatus) -> str:
    shown = ("test_mse", "test_rmse", "test_mae", "ndcg@10", "recall@10")
    metrics = [name for name in shown if name in release.ensemble_metrics]
    rows = [
        (
            entry.weight.model,
            entry.weight.version,
            entry.backend,
            f"{entry.weight.ranking_weight:.3f}",
            f"{entry.weight.rating_weight:.3f}",
            *(_metric(entry.metrics.get(name)) for name in metrics),
        )
        for entry in release.models
    ]
    ensemble = [_metric(release.ensemble_metrics[name]) for name in metrics]
    rows.append(("ensemble", "", "gateway", "", "", *ensemble))
    return "\n".join(
        [
            f"release {printable(release.release_id)}, published {printable(release.published_at)}",
            f"{release.rating_count:,} ratings by {release.user_count:,} users of "
            f"{release.item_count:,} items, from {printable(release.data_source)}",
            *_measured(release),
            *_gate(release.gate),
            "",
            render(
                ("model", "version", "backend", "ranking weight", "rating weight", *metrics),
                rows,
                "<<<>>" + ">" * len(metrics),
                droppable=("version", "backend", "recall@10", "test_mae", "test_mse"),
            ),
        ]
    )


def _measured(release: marquee.ReleaseStatus) -> list[str]:
    """Describes in one line how the metrics were measured, and which models are served."""
    measured = release.evaluation
    if measured is None or not measured.split:
        return []
    served = "serves models refitted on all ratings" if release.refitted else "serves these models"
    kind = "; implicit feedback" if release.implicit_feedback else ""
    trained = f"trained on {measured.training_ratings:,}, " if measured.training_ratings else ""
    return [
        f"measured by {printable(measured.split)}: {trained}tested on "
        f"{measured.test_ratings:,} ratings; {served}{kind}"
    ]


def _gate(verdict: marquee.GateVerdict | None) -> list[str]:
    """Formats the verdict of the promotion gate, with the checks that advise against promotion."""
    if verdict is None:
        return []
    compared = verdict.compared_release_id or "nothing in production"
    others = [f"{c.name}: {c.text}" for c in verdict.checks if c.decision != "promote"]
    text = f"gate: {verdict.decision}, compared with {compared}"
    return [printable(each) for each in (text, *(f"  {other}" for other in others))]


def _backends(backends: Sequence[marquee.BackendStatus]) -> str:
    table = render(
        ("backend", "target", "health", "releases"),
        [
            (
                backend.backend,
                backend.target,
                "healthy" if backend.healthy else "UNHEALTHY",
                str(len(backend.loaded_release_ids)),
            )
            for backend in backends
        ],
        "<<<>",
        droppable=("releases",),
    )
    errors = [
        printable(f"last error of {name}: {_cause(text)}" + (f" ({at})" if at else ""))
        for name, at, text in (
            (backend.backend, backend.last_error_at, backend.last_error) for backend in backends
        )
        if text
    ]
    return "\n".join([table, *([""] if errors else []), *errors])


def _cause(error: str) -> str:
    """Returns the cause in gRPC's message about a failed connection; else the whole message."""
    _, is_connection, cause = error.rpartition("last error: ")
    return cause.rpartition(": ")[2] if is_connection else error


def _experiment(state: marquee.ExperimentStatus) -> str:
    lines = []
    if state.experiment:
        title = f"experiment {state.experiment}, started {state.started_at}"
        if state.uncounted_list_count:
            title += f", {state.uncounted_list_count:,} lists not counted"
        rows = [
            (
                arm.arm,
                f"{arm.percent:g} %",
                arm.release_id,
                ", ".join(f"{name} {weight:.3g}" for name, weight in arm.ranking_weights.items()),
                arm.unavailable_reason or "serving",
            )
            for arm in state.arms
        ]
        headers = ("arm", "share", "release", "ranking weights", "state")
        lines = [printable(title), render(headers, rows, "<><<<", droppable=("ranking weights",))]
    if state.last_error:
        lines.append(printable(f"experiments in the store cannot be read: {state.last_error}"))
    return "\n".join(lines)


def _feedback(state: marquee.FeedbackStatus) -> str:
    lag = "not read yet" if state.lag_seconds is None else f"{state.lag_seconds:.1f} s behind"
    line = f"feedback: {'healthy' if state.healthy else 'UNHEALTHY'}, {lag}"
    line += f", position {state.log_position:,}, {state.user_count:,} users in memory"
    if state.evicted_user_count:
        line += f", {state.evicted_user_count:,} evicted"
    return line + (f"; {printable(state.last_error)}" if state.last_error else "")


def _metric(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
