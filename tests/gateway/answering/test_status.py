"""The status that operators see."""

from __future__ import annotations

from typing import Any

from gateway.calls import TIMEOUT_S
from marquee.v1 import recommender_service_pb2 as pb
from marquee_core.release.verdict import Check, Decision, Verdict
from marquee_core.release.verdicts import record_verdict


async def test_status_lists_the_release_models_and_backends(stub: Any, services: Any) -> None:
    """The status also includes the metrics of the release."""
    status = await stub.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)
    assert status.release.release_id == services.first.release_id
    assert {m.weight.model: m.backend for m in status.release.models}["mf"] == "inference"
    assert [(b.backend, b.healthy) for b in status.backends] == [("cf", True), ("inference", True)]
    assert status.release.ensemble_metrics["test_mse"] == 0.9
    assert status.pending_release_reason == ""
    assert not status.release.HasField("gate")


async def test_status_includes_the_verdict_of_the_gate(stub: Any, services: Any) -> None:
    """The status has the recorded verdict on the release in service, with its figures."""
    second = await services.publish(seed=1, promote=False)
    check = Check("ranking", Decision.PROMOTE, "is better", {"difference": 0.25})
    first, at = services.first.release_id, "2026-01-01T00:00:00+00:00"
    record_verdict(services.store.storage, Verdict.of(second.release_id, first, at, [check]))
    services.store.promote(second.release_id)
    await services.until(lambda: services.gateway.releases.verdict is not None)
    status = await stub.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)
    assert status.release.release_id == second.release_id
    gate = status.release.gate
    assert (gate.decision, gate.compared_release_id, gate.judged_at) == ("promote", first, at)
    assert [(c.name, c.text, dict(c.figures)) for c in gate.checks] == [
        ("ranking", "is better", {"difference": 0.25})
    ]
