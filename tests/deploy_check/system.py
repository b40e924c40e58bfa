"""Runs a whole overlay on this machine: its training Job, its servers, and a call."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from deploy_check.objects import Object, port_names, variables, workloads
from deploy_check.processes import (
    INTERVAL_S,
    WAIT_S,
    ProcessError,
    Step,
    Workspace,
    container_of,
    read_metrics,
    run_to_end,
    running_servers,
)
from deploy_check.secrets import Secrets
from marquee import Client
from marquee_core.release.contents import load_users
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import CF, GATEWAY, INFERENCE
from observe.metric_names import AT_START

METRICS_PORT = 9090
# One model of each backend is enough here; the manifests train all models.
QUICK = {"MARQUEE_TRAIN_MODELS": "ease,mf"}
SMALL_SAMPLE = {"MARQUEE_TRAIN_DATA": "sample:users=80,items=60,ratings=2400"}
_RATINGS = 2400
# The users and items in the ratings that replace those of the claim.
USER_IDS = tuple(str(number) for number in range(1, 81))
ITEM_IDS = tuple(str(number) for number in range(1, 61))
_CALL_TIMEOUT_S = 60.0
OnStep = Callable[[str, Step], None]


def train(objects: list[Object], workspace: Workspace, on_step: OnStep) -> None:
    """Runs the overlay's training Jobs on a small set of ratings.

    Args:
        objects: The rendered objects.
        workspace: The local folders and ports; the store gets a release in production.
        on_step: Called with `trainer` and each container that has succeeded.

    Raises:
        ProcessError: A container failed, or no release is in production afterwards.
    """
    store, ratings = workspace.volume("/store"), workspace.volume("/ratings")
    store.mkdir(parents=True, exist_ok=True)
    if not ratings.exists():
        _write_ratings(ratings)
    jobs = [w for w in workloads(objects) if w.is_job]
    for container in (c for job in jobs for c in job.containers):
        is_sample = variables(container).get("MARQUEE_TRAIN_DATA") == "sample"
        extra = {**QUICK, **(SMALL_SAMPLE if is_sample else {})}
        on_step("trainer", run_to_end(workspace, container, extra))
    if ReleaseStore(str(store)).production() is None:
        raise ProcessError("no release is in production after the training Job")


def _write_ratings(folder: Path) -> None:
    """Writes a folder of ratings as an operator would put it on the volume."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    # The first items are the most popular ones.
    shares = np.tile(1.0 / np.arange(1, len(ITEM_IDS) + 1), len(USER_IDS))
    shares /= shares.sum()
    pairs = random.choice(len(shares), _RATINGS, replace=False, p=shares)
    lines = [
        f"{USER_IDS[pair // len(ITEM_IDS)]},{ITEM_IDS[pair % len(ITEM_IDS)]},{stars},{time}"
        for time, (pair, stars) in enumerate(
            zip(pairs, random.integers(1, 6, _RATINGS), strict=True), 1_600_000_000
        )
    ]
    (folder / "ratings.csv").write_text("\n".join(["userId,movieId,rating,timestamp", *lines, ""]))
    titles = [f"{item},Film {item} (1990),Drama" for item in ITEM_IDS]
    (folder / "movies.csv").write_text("\n".join(["movieId,title,genres", *titles, ""]))


def serve_and_call(objects: list[Object], workspace: Workspace, on_step: OnStep) -> None:
    """Starts the overlay's servers, calls the gateway, reads the metrics, and stops the servers.

    Args:
        objects: The rendered objects.
        workspace: The local folders and ports; the store must have a release in production.
        on_step: Called with a service's name and each step that it has passed.

    Raises:
        ProcessError: A probe, the call or a metric failed, or a server did not exit with 0.
    """
    tls = Secrets(objects, workspace.volume("/tls")).caller
    with running_servers(objects, workspace, on_step):
        address = gateway_address(objects, workspace)
        begun = time.monotonic()
        with Client(address, tls=tls, timeout=_CALL_TIMEOUT_S) as client:
            await_full_answer(client, any_user(workspace))
        how = "over mutual TLS" if tls else "in plaintext"
        on_step(GATEWAY, Step(f"answers Recommend {how}", time.monotonic() - begun))
        for service in (GATEWAY, CF, INFERENCE):
            begun = time.monotonic()
            check_metrics(workspace, service)
            on_step(service, Step("exposes metrics", time.monotonic() - begun))


def check_metrics(workspace: Workspace, service: str) -> None:
    """Checks that a server exposes the metrics that it must expose from its start.

    Raises:
        ProcessError: A metric is missing.
    """
    lines = read_metrics(workspace, service, METRICS_PORT).splitlines()
    exposed = {line.partition(" ")[0].partition("{")[0] for line in lines}
    if missing := sorted(AT_START[service] - exposed):
        raise ProcessError(f"{service} does not expose {', '.join(missing)}")


def gateway_address(objects: list[Object], workspace: Workspace) -> str:
    """Returns the local address of the overlay's gateway."""
    (gateway,) = (w for w in workloads(objects) if w.name == "marquee-gateway")
    port = port_names(container_of(gateway))["grpc"]
    return f"127.0.0.1:{workspace.port(GATEWAY, port)}"


def await_full_answer(client: Client, user: str) -> None:
    """Calls until an answer is not degraded; on a busy machine the first calls may time out.

    Raises:
        ProcessError: Answers stay degraded.
    """
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        answer = client.recommend(user)
        if answer.items and not answer.source.degraded:
            return
        time.sleep(INTERVAL_S)
    raise ProcessError(f"answers stay degraded: {[*answer.source.degraded_reasons]}")


def any_user(workspace: Workspace) -> str:
    """Returns the id of a user in the release in production.

    Raises:
        ProcessError: No release is in production.
    """
    store = ReleaseStore(str(workspace.volume("/store")))
    production = store.production()
    if production is None:
        raise ProcessError("no release is in production")
    manifest = store.manifest(production.release_id)
    users = load_users(store, manifest, workspace.folder / "users")
    return next(iter(users.ids(range(1))))
