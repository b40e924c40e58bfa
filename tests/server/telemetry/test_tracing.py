"""Request ids and traces follow a call through gateway and backends."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio
from google.rpc import error_details_pb2, status_pb2
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import marquee
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee.v1.recommender_service_pb2_grpc import RecommenderServiceStub
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import CF, GATEWAY
from marquee_services.processes import ServiceProcess
from marquee_services.server.telemetry import tracing
from marquee_services.server.telemetry.call_scope import add_to_log
from toy.release import publish_toy
from toy.services import Services, toy_services
from toy.waiting import wait_until

TIMEOUT_S = 60.0
TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
VISITOR = pb.RecommendRequest(
    subject=types_pb2.Subject(ratings=[types_pb2.Rating(item_id="i1", stars=5)])
)


async def recommend(address: str, *metadata: tuple[str, str]) -> dict[str, str]:
    """Call Recommend for a visitor, and return the trailing metadata."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = RecommenderServiceStub(channel)
        call = stub.Recommend(VISITOR, timeout=TIMEOUT_S, metadata=metadata)
        await call
        return dict(await call.trailing_metadata())


async def test_a_request_id_is_echoed_or_generated(services: Services) -> None:
    """The request id of a caller is kept if it is safe to log."""
    given = await recommend(services.address, ("x-request-id", "order-17"))
    assert given["x-request-id"] == "order-17"
    made = [await recommend(services.address) for _ in range(2)]
    assert len({trailers["x-request-id"] for trailers in made}) == 2
    unsafe = await recommend(services.address, ("x-request-id", "a b {}" + 200 * "x"))
    assert len(unsafe["x-request-id"]) == 32


async def test_an_error_names_its_request(services: Services) -> None:
    """The id is in the google.rpc.RequestInfo of the status and in the client's exception."""
    async with marquee.AsyncClient(services.address, timeout=TIMEOUT_S) as client:
        with pytest.raises(marquee.NotFound) as error:
            await client.get_item("none", metadata={"x-request-id": "order-18"})
        assert error.value.request_id == "order-18"
        assert error.value.metadata == {"item_id": "none"}
    async with grpc.aio.insecure_channel(services.address) as channel:
        stub: Any = RecommenderServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.GetItem(pb.GetItemRequest(), timeout=TIMEOUT_S)
    trailers = dict(raised.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    info = error_details_pb2.RequestInfo()
    assert any(detail.Unpack(info) for detail in status.details)
    assert info.request_id == trailers["x-request-id"]


async def test_every_log_entry_of_a_call_has_its_request_id(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This includes the gateway, the backend that it calls, and entries of libraries."""
    seen: dict[str, dict[str, Any]] = {}

    def note(where: str) -> None:
        seen[where] = dict(add_to_log(None, "info", {"event": where}))

    gateway_ask = services.gateway.backends[0].call
    cf = services.scoring[CF].follower
    found = cf.get

    async def ask(*args: Any, **kwargs: Any) -> Any:
        note("gateway")
        return await gateway_ask(*args, **kwargs)

    def get(release_id: str) -> Any:
        note("cf")
        return found(release_id)

    monkeypatch.setattr(services.gateway.backends[0], "call", ask)
    monkeypatch.setattr(cf, "get", get)
    # On a busy machine a backend may be away for a moment; the answer is then degraded.
    async with asyncio.timeout(TIMEOUT_S):
        while not {"gateway", "cf"} <= seen.keys():
            await recommend(services.address, ("x-request-id", "order-19"))
    assert seen["gateway"]["request_id"] == seen["cf"]["request_id"] == "order-19"
    assert "request_id" not in add_to_log(None, "info", {"event": "outside of calls"})


@pytest.fixture
def spans() -> Iterator[Callable[[], list[Any]]]:
    """Record traces in this process, and return a function that lists the finished spans."""
    exporter = InMemorySpanExporter()
    tracer = tracing.Tracer("test", exporter)
    tracing.use(tracer)

    def ended() -> list[Any]:
        tracer._provider.force_flush()
        return list(exporter.get_finished_spans())

    yield ended
    tracing.shut_down()


@pytest_asyncio.fixture
async def traced(spans: Any, tmp_path: Path) -> AsyncIterator[Services]:
    """The three services with tracing enabled."""
    async with toy_services(tmp_path) as running:
        yield running


async def test_a_trace_spans_gateway_and_backends(traced: Services, spans: Any) -> None:
    """Spans follow the semantic conventions, and are children of the caller's span."""
    await recommend(traced.address, ("traceparent", f"00-{TRACE}-{PARENT}-01"))
    await traced.until(lambda: len([s for s in spans() if s.name.endswith("RankItems")]) >= 4)
    by_id = {span.context.span_id: span for span in spans() if span.attributes["rpc.method"]}
    gateway = next(s for s in by_id.values() if s.name == "marquee.v1.RecommenderService/Recommend")
    assert f"{gateway.context.trace_id:032x}" == TRACE
    assert f"{gateway.parent.span_id:016x}" == PARENT
    assert gateway.kind.name == "SERVER"
    assert gateway.attributes["rpc.system.name"] == "grpc"
    assert gateway.attributes["rpc.response.status_code"] == "OK"
    for span in by_id.values():
        assert span.context.trace_id == gateway.context.trace_id
        if span.name.endswith("RankItems") and span.kind.name == "SERVER":
            client = by_id[span.parent.span_id]
            assert client.kind.name == "CLIENT"
            assert client.attributes["server.port"]
            assert client.parent.span_id == gateway.context.span_id


async def test_exemplars_contain_the_trace_id(
    traced: Services, free_port: Callable[[], int]
) -> None:
    """Exemplars in OpenMetrics lead from a slow bucket on a dashboard to a trace."""
    port = free_port()
    gateway = await traced.start_gateway(metrics_port=port)
    await traced.until_full(gateway)
    address = f"127.0.0.1:{gateway.bound.port}"
    await recommend(address, ("traceparent", f"00-{TRACE}-{PARENT}-01"))
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request("GET", "/metrics", headers={"accept": "application/openmetrics-text"})
    text = connection.getresponse().read().decode()
    connection.close()
    assert any(
        line.startswith("marquee_call_seconds_bucket") and f'trace_id="{TRACE}"' in line
        for line in text.splitlines()
    )
    await gateway.stop(0.5)


async def test_the_sampling_decision_of_the_caller_is_respected(
    traced: Services, spans: Any
) -> None:
    """If the caller does not sample its trace, no spans are recorded."""
    await recommend(traced.address, ("traceparent", f"00-{TRACE}-{PARENT}-00"))
    assert not [span for span in spans() if f"{span.context.trace_id:032x}" == TRACE]


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Receives spans over OTLP."""

    def __init__(self) -> None:
        self.names: dict[str, set[str]] = {}

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's
        """Record which services took part in which trace."""
        for group in request.resource_spans:
            attributes = {a.key: a.value.string_value for a in group.resource.attributes}
            for scope in group.scope_spans:
                for span in scope.spans:
                    self.names.setdefault(span.trace_id.hex(), set()).add(
                        attributes["service.name"]
                    )
        return trace_service_pb2.ExportTraceServiceResponse()


def test_processes_export_spans_as_configured_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Spans are exported by OTLP over gRPC, and the rest at exit."""
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    register: Any = trace_service_pb2_grpc.add_TraceServiceServicer_to_server
    register(collector, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
    store = ReleaseStore(str(tmp_path / "store"))
    store.promote(publish_toy(store, tmp_path / "made", servable=True).release_id)
    cf = ServiceProcess(CF, {"store": store.url}, tmp_path / "cf.log")
    options: dict[str, str | None] = {"store": store.url, "cf-target": cf.address}
    gateway = ServiceProcess(GATEWAY, options, tmp_path / "gateway.log")
    try:
        with marquee.Client(gateway.address, timeout=TIMEOUT_S, wait_for_ready=True) as client:
            wait_until(lambda: all(b.loaded_release_ids for b in client.status().backends))
            parent = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            client.recommend(ratings={"i1": 5.0}, metadata=parent)
        assert gateway.stop() == 0
        assert cf.stop() == 0
    finally:
        gateway.kill()
        cf.kill()
        server.stop(None)
    assert collector.names[TRACE] == {"marquee-gateway", "marquee-cf"}
    for line in (tmp_path / "gateway.log").read_text().splitlines():
        json.loads(line)


def test_an_unreachable_collector_does_not_delay_shutdown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server stops as promptly as without tracing, and its calls are not affected."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    options = {"store": str(tmp_path / "empty")}
    gateway = ServiceProcess(GATEWAY, options, tmp_path / "gateway.log")
    try:
        with marquee.Client(gateway.address, timeout=TIMEOUT_S, health_check=False) as client:
            client.status()
        assert gateway.stop() == 0
    finally:
        gateway.kill()


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
    ],
)
def test_traces_are_off_unless_configured(environment: dict[str, str]) -> None:
    """Without configuration, OpenTelemetry is not imported."""
    tracing.configure("test", environment)
    assert tracing.active() is None


def test_log_entries_contain_the_trace_id(spans: Any) -> None:
    """An entry leads to its trace, and a trace to its entries."""
    tracer = tracing.active()
    assert tracer is not None
    span = tracer.begin_server_span("/a/b", [("traceparent", f"00-{TRACE}-{PARENT}-01")])
    assert tracing.log_fields(span)["trace_id"] == TRACE
    tracing.end_span(span, "INTERNAL")
    (ended,) = spans()
    assert ended.status.status_code.name == "ERROR"
    assert ended.attributes["error.type"] == "INTERNAL"
