"""Fixtures of the gateway's tests."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Any:
    """A stub for the gateway."""
    return RecommenderServiceStub(channel)
