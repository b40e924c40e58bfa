"""What the metrics of a running system report, and when."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from prometheus_client.parser import text_string_to_metric_families

import marquee
from marquee.v1 import errors_pb2
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import CF, GATEWAY
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.processes import ServiceProcess
from toy.release import publish_toy
from toy.waiting import wait_until

TIMEOUT_S = 60.0


def values(server: Any, name: str) -> dict[tuple[tuple[str, str], ...], float]:
    """Return the samples of a name in the registry of a server, by their labels."""
    return {
        tuple(sorted(sample.labels.items())): sample.value
        for metric in server.metrics.registry.collect()
        for sample in metric.samples
        if sample.name == name
    }


def value(server: Any, name: str, **labels: str) -> float | None:
    """Return one sample, or None if there is none with these labels."""
    return values(server, name).get(tuple(sorted(labels.items())))


def client_of(gateway: Any) -> marquee.AsyncClient:
    """Return a client of a gateway."""
    return marquee.AsyncClient(f"127.0.0.1:{gateway.bound.port}", timeout=TIMEOUT_S)


def scrape(port: int) -> dict[str, float]:
    """Return the samples of a server by name and labels, without quotes."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=TIMEOUT_S) as page:
        text = page.read().decode()
    return {
        sample.name + "".join(f" {k}={v}" for k, v in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_killed_backend_changes_a_metric_without_traffic(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    """The gateway's probes detect it, by default within less than 2 s."""
    defaults = GatewaySettings()
    assert defaults.probe_interval + defaults.backend_timeout < 2
    store, port = ReleaseStore(str(tmp_path / "store")), free_port()
    store.promote(publish_toy(store, tmp_path / "made", servable=True).release_id)
    cf = ServiceProcess(CF, {"store": store.url}, tmp_path / "cf.log")
    options: dict[str, str | None] = {"store": store.url, "cf-target": cf.address}
    options["metrics-port"] = str(port)
    gateway = ServiceProcess(GATEWAY, options, tmp_path / "gateway.log")
    try:
        name = "marquee_backend_healthy backend=cf"
        wait_until(lambda: scrape(port)[name])
        cf.kill()
        wait_until(lambda: not scrape(port)[name])
        after = scrape(port)
        assert after["marquee_backend_replicas backend=cf state=unhealthy"] == 1
        assert after[f"marquee_replica_healthy address=ipv4:{cf.address} backend=cf"] == 0
        assert after["process_resident_memory_bytes"] > 0
        assert after["process_open_fds"] > 0
    finally:
        gateway.kill()
        cf.kill()


async def test_every_label_exists_before_the_first_event(services: Any) -> None:
    """A rate needs two samples, so the first event of a new label would be lost."""
    gateway = services.gateway
    calls = values(gateway, "marquee_calls_total")
    assert len(calls) == 11 * len(grpc.StatusCode)
    assert not any(calls.values())
    reasons = values(gateway, "marquee_call_errors_total")
    assert len(reasons) == len(errors_pb2.ErrorReason.keys()) - 1
    assert (
        value(gateway, "marquee_degraded_answers_total", reason="DEGRADED_REASON_CF_TIMEOUT") == 0
    )
    assert {value for ((_, value),) in values(gateway, "marquee_subjects_total")} >= {"KNOWN"}
    assert {value for ((_, value),) in values(gateway, "marquee_answers_total")} == {
        "cached",
        "precomputed",
        "computed",
    }


async def test_calls_are_counted_and_probes_are_not(services: Any) -> None:
    """The gateway lists the releases of its backends all the time, which is not traffic."""
    gateway, cf = services.gateway, services.scoring[CF].bound
    async with client_of(gateway) as client:
        await client.recommend(ratings={"i1": 5.0})
        with pytest.raises(marquee.NotFound):
            await client.get_item("none")
    assert value(gateway, "marquee_calls_total", method="Recommend", code="OK") == 1
    assert value(gateway, "marquee_calls_total", method="GetItem", code="NOT_FOUND") == 1
    assert value(gateway, "marquee_call_errors_total", reason="ITEM_NOT_FOUND") == 1
    stable = {
        "rpc_system_name": "grpc",
        "rpc_method": "marquee.v1.RecommenderService/Recommend",
        "rpc_response_status_code": "OK",
    }
    assert value(gateway, "rpc_server_call_duration_seconds_count", **stable) == 1
    assert value(cf, "marquee_calls_total", method="RankItems", code="OK") == 1
    stable["rpc_method"] = "marquee.v1.ScoringService/RankItems"
    calls = value(gateway, "rpc_client_call_duration_seconds_count", backend=CF, **stable)
    assert calls == 1
    assert value(cf, "marquee_calls_total", method="ListReleases", code="OK") == 0
    methods = {
        dict(labels)["method"] for labels in values(gateway, "marquee_backend_call_seconds_sum")
    }
    assert "ListReleases" not in methods


async def test_queues_batches_and_models_are_measured(services: Any) -> None:
    """The queues of the gateway and of the backends are exported with their limits."""
    gateway, cf = services.gateway, services.scoring[CF].bound
    async with client_of(gateway) as client:
        await client.recommend(ratings={"i1": 5.0})
    for server in (gateway, cf):
        labels = {"backend": CF, "queue": "rank"}
        assert value(server, "marquee_batch_users_count", **labels) == 1
        assert value(server, "marquee_queue_wait_seconds_count", **labels) == 1
        assert value(server, "marquee_queue_users", **labels) == 0
        limit = value(server, "marquee_queue_limit_users", **labels)
        assert limit is not None
        assert limit > 0
    ranked = {
        dict(labels)["model"]: count
        for labels, count in values(cf, "marquee_model_seconds_count").items()
        if dict(labels)["operation"] == "rank"
    }
    assert ranked
    assert set(ranked.values()) == {1.0}


async def test_answers_are_described(services: Any) -> None:
    """Answers are counted by kind of subject, stars, popularity and missing items."""
    gateway = services.gateway
    release = services.first.release_id
    async with client_of(gateway) as client:
        visitor = await client.recommend(ratings={"i1": 5.0})
        empty = await client.recommend(ratings={"i1": 5.0}, genres_all=["none"])
        for _ in range(3):
            known = await client.recommend("u7")
    assert not empty.items
    assert value(gateway, "marquee_subjects_total", kind="VISITOR") == 2
    assert value(gateway, "marquee_subjects_total", kind="KNOWN")
    assert value(gateway, "marquee_empty_answers_total") == 1
    stars = value(gateway, "marquee_predicted_stars_count", release_id=release)
    assert stars is not None
    assert stars >= len(visitor.items) + len(known.items)
    counted = values(gateway, "marquee_recommended_items_total")
    assert sum(counted.values()) == stars
    mean = value(gateway, "marquee_predicted_stars_sum", release_id=release)
    assert mean is not None
    assert 0.5 <= mean / stars <= 5.5


async def test_releases_and_caches_are_described(services: Any) -> None:
    """Wanted, loaded and served releases and the fill levels of the caches are exported."""
    gateway, first = services.gateway, services.first.release_id
    assert value(gateway, "marquee_release_wanted", release_id=first) == 1
    assert value(gateway, "marquee_release_loaded", release_id=first) == 1
    published = value(gateway, "marquee_release_published_timestamp_seconds", release_id=first)
    assert published is not None
    assert 0 <= time.time() - published < 3600
    async with client_of(gateway) as client:
        await client.recommend("u7", genres_none=["Horror"])
    assert value(gateway, "marquee_cache_entries", cache="answers") == 1
    size = value(gateway, "marquee_cache_bytes", cache="answers")
    limit = value(gateway, "marquee_cache_limit_bytes", cache="answers")
    assert size is not None
    assert limit is not None
    assert 0 < size < limit
    assert value(gateway, "marquee_cache_evictions_total", cache="answers") == 0


async def test_a_refused_release_is_reported_with_its_reason(services: Any) -> None:
    """The last good release stays in service."""
    gateway = services.gateway
    bad = await services.publish(seed=3, promote=False)
    folder = Path(services.store.url) / "releases" / bad.release_id
    production = Path(services.store.url) / "production"
    (folder / "ensemble.json").write_text("{}")
    # A promotion would refuse it as well.
    text = production.read_text().replace(services.first.release_id, bad.release_id, 1)
    production.write_text(text)
    await services.until(lambda: gateway.follower.refused)
    ((labels, _),) = values(gateway, "marquee_release_refused").items()
    assert dict(labels)["release_id"] == bad.release_id
    assert "ensemble.json" in dict(labels)["reason"]
    assert value(gateway, "marquee_releases_refused_total") == 1
    assert value(gateway, "marquee_release_in_service", release_id=services.first.release_id) == 1


async def test_a_refused_release_is_dropped_once_another_is_promoted(services: Any) -> None:
    """Otherwise, its alert would fire for as long as it is in the history."""
    follower = services.gateway.follower
    bad = await services.publish(seed=3, promote=False)
    (Path(services.store.url) / "releases" / bad.release_id / "ensemble.json").write_text("{}")
    production = Path(services.store.url) / "production"
    text = production.read_text().replace(services.first.release_id, bad.release_id, 1)
    production.write_text(text)
    await services.until(lambda: follower.refused)
    assert values(services.gateway, "marquee_release_refused")
    services.store.promote(services.first.release_id)
    await services.until(lambda: follower.promoted_id == services.first.release_id)
    assert bad.release_id in follower.refused
    assert not values(services.gateway, "marquee_release_refused")


async def test_failed_polls_of_the_store_are_counted(services: Any) -> None:
    """A poll fails if the store is away, for example because a mount is lost."""
    gateway = services.gateway
    production = Path(services.store.url) / "production"
    text = production.read_text()
    production.unlink()
    production.mkdir()
    await services.until(lambda: value(gateway, "marquee_store_errors_total"))
    last = value(gateway, "marquee_store_last_poll_timestamp_seconds")
    production.rmdir()
    production.write_text(text)
    await services.until(
        lambda: value(gateway, "marquee_store_last_poll_timestamp_seconds") != last
    )
