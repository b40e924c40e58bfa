"""The status that operators see."""

from __future__ import annotations

from typing import Any

from gateway.calls import TIMEOUT_S
from marquee.v1 import recommender_service_pb2 as pb


async def test_status_names_release_models_and_backends(stub: Any, services: Any) -> None:
    """It also has the release's metrics."""
    status = await stub.GetStatus(pb.GetStatusRequest(), timeout=TIMEOUT_S)
    assert status.release.release_id == services.first.release_id
    assert {m.weight.model: m.backend for m in status.release.models}["mf"] == "inference"
    assert [(b.backend, b.healthy) for b in status.backends] == [("cf", True), ("inference", True)]
    assert status.release.ensemble_metrics["test_mse"] == 0.9
    assert status.pending_release_reason == ""
