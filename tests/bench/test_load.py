"""The benchmark's load generator counts a server's answers exactly."""

from __future__ import annotations

import asyncio
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import grpc
import numpy as np
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st

from bench import http2
from bench.connection import Connection
from bench.load import ClosedLoop, LoadPlan, Outcome
from bench.report import MET, MISSED, NOT_MEASURED, Row, Target
from bench.worker import count_answers
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2

pytestmark = pytest.mark.alone

METHODS = ("Unary", "Stream")
DETAILS = (("grpc-status-details-bin", b"\x00\xffdetails"),)


class Handler(grpc.GenericRpcHandler):
    """Executes the command in a request: a word, a colon and a number.

    Attributes:
        seen: Number of requests by word.
        in_progress: Number of unary calls in progress.
        most_in_progress: Maximum number of unary calls in progress at the same time.
    """

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.in_progress = 0
        self.most_in_progress = 0

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Implements `grpc.GenericRpcHandler.service`."""
        name = handler_call_details.method.rsplit("/", 1)[-1]
        if name == "Unary":
            handler: grpc.RpcMethodHandler[Any, Any] = grpc.unary_unary_rpc_method_handler(
                self._unary
            )
            return handler
        return grpc.unary_stream_rpc_method_handler(self._stream) if name == "Stream" else None

    async def _unary(self, request: bytes, context: Any) -> bytes:
        word, _, number = request[:40].rstrip(b".").partition(b":")
        self.seen[word.decode()] += 1
        self.in_progress += 1
        self.most_in_progress = max(self.most_in_progress, self.in_progress)
        # Other calls may arrive during the sleep below, so this is checked before it.
        is_first = self.seen["fail-once"] == 1
        try:
            await asyncio.sleep(0)
            if word == b"fail" or (word == b"fail-once" and is_first):
                code = next(c for c in grpc.StatusCode if c.value[0] == int(number))
                await context.abort(code, "ungültig", DETAILS)
            if word == b"sleep":
                await asyncio.sleep(float(number))
            if word == b"gather":
                while self.most_in_progress < int(number):
                    await asyncio.sleep(0.01)
                # Time for calls beyond that number to arrive.
                await asyncio.sleep(0.05)
            return pattern(int(number)) if word == b"send" else str(len(request)).encode()
        finally:
            self.in_progress -= 1

    async def _stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        word, _, number = request.partition(b":")
        for size in range(int(number)):
            yield pattern(size * 100)
        if word == b"break":
            await context.abort(grpc.StatusCode.UNAVAILABLE, "broken")


def pattern(size: int) -> bytes:
    """Makes bytes that reveal a lost, repeated or misplaced frame."""
    return np.arange(size // 4 + 1, dtype="<u4").tobytes()[:size]


class Server:
    """A grpc.aio server on a real socket, in this process."""

    def __init__(self) -> None:
        self.handler = Handler()
        self.server = grpc.aio.server(
            options=(("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", -1))
        )
        self.server.add_generic_rpc_handlers((self.handler,))
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"

    async def load(self, messages: list[bytes], method: str = "Unary", **changes: Any) -> Outcome:
        """Runs a load on this server.

        Args:
            messages: The requests.
            method: The method to call.
            changes: Changes to the default plan: 60 calls on 2 connections, 4 of them in flight.
        """
        plan = LoadPlan(
            self.address,
            f"/test.Service/{method}",
            in_flight=4,
            connections=2,
            seconds=0.0,
            calls=60,
            streaming=method == "Stream",
        )
        return await ClosedLoop(replace(plan, **changes), messages, lambda _: None).run()


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    """A running server."""
    running = Server()
    await running.server.start()
    yield running
    await running.server.stop(None)


async def test_failed_calls_are_counted_by_status(server: Server) -> None:
    """A call that fails with any status does not count as throughput."""
    outcome = await server.load([b"size:", b"fail:5", b"fail:8", b"size:"], calls=200)
    assert outcome.errors == {"5": 50, "8": 50}
    assert len(outcome.latencies_s) == len(outcome.bodies) == 100
    assert server.handler.seen == {"size": 100, "fail": 100}


async def test_an_unknown_method_is_an_error(server: Server) -> None:
    """A load on a misspelt path has errors only."""
    outcome = await server.load([b"size:"], method="Missing")
    assert (outcome.errors, outcome.bodies) == ({"12": 60}, [])


async def test_an_exceeded_deadline_is_an_error(server: Server) -> None:
    """Calls carry their deadline to the server, and DEADLINE_EXCEEDED is counted."""
    outcome = await server.load([b"sleep:30"], calls=3, timeout_s=1)
    assert (outcome.errors, outcome.bodies) == ({"4": 3}, [])


@pytest.mark.parametrize("window", [http2.DEFAULT_WINDOW, 4 * 1024 * 1024])
async def test_large_answers_arrive_whole(server: Server, window: int) -> None:
    """Answers larger than a frame and than the flow-control windows arrive without loss."""
    size = 3_000_000
    outcome = await server.load([b"send:%d" % size], calls=8, window=window)
    assert not outcome.errors
    assert [list(http2.grpc_messages(body)) for body in outcome.bodies] == [[pattern(size)]] * 8


async def test_large_requests_respect_the_servers_windows(server: Server) -> None:
    """Requests larger than a frame and than the server's windows arrive whole, like small ones."""
    size = 1_500_000
    outcome = await server.load([b"size:" + b"." * (size - 5), b"size:"], calls=12)
    assert not outcome.errors
    lengths = Counter(message for body in outcome.bodies for message in http2.grpc_messages(body))
    assert lengths == {str(size).encode(): 6, b"5": 6}


async def test_streams_count_when_they_succeed(server: Server) -> None:
    """All messages of a stream are kept; a stream that fails after some messages is an error."""
    outcome = await server.load([b"send:7", b"break:3"], method="Stream", calls=20)
    assert outcome.errors == {"14": 10}
    sent = [pattern(size * 100) for size in range(7)]
    assert [list(http2.grpc_messages(body)) for body in outcome.bodies] == [sent] * 10


async def test_the_planned_number_of_calls_is_in_flight(server: Server) -> None:
    """The connections together reach the planned number of calls in flight, and never exceed it."""
    await server.load([b"gather:24"], in_flight=24, calls=96, connections=3)
    assert server.handler.most_in_progress == 24


async def test_failures_during_the_warm_up_count(server: Server) -> None:
    """Successful calls count only after the warm-up, failed calls always."""
    start = time.perf_counter()
    outcome = await server.load([b"fail-once:13"], warm_s=0.5, seconds=1.0)
    elapsed = time.perf_counter() - start
    assert outcome.errors == {"13": 1}
    assert 0 < len(outcome.bodies) < server.handler.seen["fail-once"] - 1
    assert 1.0 <= outcome.elapsed_s < elapsed - 0.5
    assert all(0 < latency < elapsed for latency in outcome.latencies_s)


async def test_a_lost_connection_is_an_error() -> None:
    """Calls in flight on a connection that is lost count as failed."""
    server = Server()
    await server.server.start()
    loading = asyncio.create_task(server.load([b"sleep:60"], in_flight=6, calls=100))
    while server.handler.in_progress < 6:
        await asyncio.sleep(0.01)
    await server.server.stop(None)
    outcome = await loading
    assert sum(outcome.errors.values()) >= 6
    assert not outcome.bodies


async def test_calls_that_do_not_end_are_errors() -> None:
    """Calls count as failed if the server has not responded after the deadline."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http2.settings_frame({}))
        while await reader.read(1000):
            pass
        writer.close()
        await writer.wait_closed()

    silent = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with silent:
        port = silent.sockets[0].getsockname()[1]
        plan = LoadPlan(f"127.0.0.1:{port}", "/s/m", 3, seconds=0.1, timeout_s=0, grace_s=0.1)
        outcome = await ClosedLoop(plan, [b"x"], lambda _: None).run()
    assert (outcome.errors, outcome.bodies) == ({"did not end": 3}, [])


class Recorder:
    """A transport that records what is written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        """Records the bytes."""
        self.written += data


def literal(name: str, value: str) -> bytes:
    """Encodes a header as an HPACK literal without indexing."""
    return bytes([0, len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def answer(chunks: list[bytes]) -> list[tuple[str, bytes]]:
    """Makes two calls to a server that sends these bytes.

    Returns:
        The status and the body of each finished call.
    """
    ended: list[tuple[str, bytes]] = []
    connection = Connection(
        "127.0.0.1:1",
        "/s/m",
        timeout_s=1,
        window=http2.DEFAULT_WINDOW,
        on_end=lambda _, call, status: ended.append((status, b"".join(call.chunks))),
    )
    connection.connection_made(Recorder())  # type: ignore[arg-type]
    for _ in range(2):
        connection.start(http2.grpc_message(b"x"), 0.0)
    for chunk in chunks:
        connection.data_received(chunk)
    return ended


HEAD = http2.frame(http2.HEADERS, http2.END_HEADERS, 1, literal(":status", "200"))
TRAILERS = literal("grpc-status", "0") + literal("grpc-message", "")
ENDED = http2.END_HEADERS | http2.END_STREAM


@given(st.lists(st.integers(0, 150), max_size=20))
def test_frames_may_arrive_in_any_pieces(cuts: list[int]) -> None:
    """Frames are reassembled however the network splits them, and padding is removed."""
    body = http2.grpc_message(b"hello")
    whole = b"".join(
        [
            http2.settings_frame({http2.MAX_FRAME_SIZE: 20_000}),
            HEAD,
            http2.frame(http2.DATA, 0, 1, body[:3]),
            http2.frame(http2.PING, 0, 0, b"12345678"),
            http2.frame(http2.DATA, http2.PADDED, 1, b"\x04" + body[3:] + b"\0" * 4),
            http2.frame(http2.HEADERS, http2.END_STREAM, 1, TRAILERS[:7]),
            http2.frame(http2.CONTINUATION, http2.END_HEADERS, 1, TRAILERS[7:]),
            http2.frame(http2.RST_STREAM, 0, 3, struct.pack(">I", 8)),
        ]
    )
    edges = [0, *sorted(cuts), len(whole)]
    chunks = [whole[a:b] for a, b in pairwise(edges)]
    assert answer(chunks) == [("0", body), ("RST_STREAM 8", b"")]


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (http2.frame(http2.HEADERS, ENDED, 1, literal(":status", "503")), "HTTP 503"),
        (http2.frame(http2.HEADERS, ENDED, 1, b"\xbe"), "HPACK InvalidTableIndex"),
        (http2.frame(http2.DATA, http2.END_STREAM, 1, b""), "no trailers"),
    ],
    ids=["no gRPC", "indexed header", "no trailers"],
)
def test_an_answer_without_a_status_is_an_error(sent: bytes, status: str) -> None:
    """Only `grpc-status: 0` counts as success."""
    ((found, _),) = answer([sent])
    assert found.startswith(status)


@pytest.mark.parametrize("body", [b"", b"\0\0\0\0\x09short", http2.grpc_message(b"a") * 2])
async def test_a_unary_answer_is_one_whole_message(body: bytes) -> None:
    """With status OK, a missing, truncated or second message is still an error."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(http2.settings_frame({}) + HEAD + http2.frame(http2.DATA, 0, 1, body))
        writer.write(http2.frame(http2.HEADERS, ENDED, 1, TRAILERS))
        while await reader.read(1000):
            pass
        writer.close()
        await writer.wait_closed()

    raw = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with raw:
        port = raw.sockets[0].getsockname()[1]
        plan = LoadPlan(f"127.0.0.1:{port}", "/s/m", in_flight=1, seconds=0.0, calls=1)
        outcome = await ClosedLoop(plan, [b"x"], lambda _: None).run()
    assert not outcome.bodies
    assert sum(outcome.errors.values()) == 1


def test_degraded_and_empty_answers_are_counted() -> None:
    """A degraded answer needs less work, so it must not count as a fast full answer."""
    full = pb.RecommendResponse(items=[pb.RecommendedItem(item_id="1")])
    degraded = pb.RecommendResponse(items=full.items, source=types_pb2.AnswerSource(degraded=True))
    bodies = [
        http2.grpc_message(one.SerializeToString())
        for one in (full, degraded, pb.RecommendResponse())
    ]
    counts = count_answers("recommend", bodies)
    assert counts == {"answers": 3, "degraded": 1, "empty": 1}


def test_an_error_for_a_subject_is_counted() -> None:
    """A batch succeeds even if some of its subjects fail, so their errors count separately."""
    answer = pb.BatchRecommendResponse.SubjectAnswer
    failed = answer(error=pb.BatchRecommendResponse.SubjectError(code=5))
    good = answer(
        recommendations=pb.BatchRecommendResponse.Recommendations(
            items=[pb.RecommendedItem(item_id="1")]
        )
    )
    message = pb.BatchRecommendResponse(answers=[failed, good])
    body = http2.grpc_message(message.SerializeToString())
    assert count_answers("batch_recommend", [body]) == {"answers": 2, "failed": 1}


def test_only_a_number_within_the_target_meets_it() -> None:
    """NaN counts as not measured, and the target applies to the ratio if there is one."""
    nan, target = float("nan"), Target(">=", 0.5)
    assert Row("a", 9.0, "", 1.0, 0.5, target).verdict == MET
    assert Row("a", 9.0, "", 1.0, 0.49, target).verdict == MISSED
    assert Row("a", 9.0, "", nan, nan, target).verdict == NOT_MEASURED
    assert Row("a", 0.4, "", target=target).verdict == MISSED
    assert Row("a", 0.4, "").verdict == ""
