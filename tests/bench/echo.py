"""The reference: a bare grpc.aio server whose answer is prepared bytes.

It runs on uvloop, has one generic handler without serialisers and does nothing else, so what it
costs is what grpc.aio costs.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import sys
from typing import Any

import grpc
import uvloop

ECHO_PATH = "/marquee.bench.Echo/Echo"


class EchoHandler(grpc.GenericRpcHandler):
    """Answers every unary call alike."""

    def __init__(self, answer: bytes) -> None:
        """Takes the answer."""

        async def echo(request: bytes, context: Any) -> bytes:
            return answer

        self._handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
            echo
        )

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """As `grpc.GenericRpcHandler.service`."""
        return self._handler


async def serve(size: int) -> None:
    """Serves until SIGTERM; writes the port to stdout.

    Args:
        size: Bytes of the answer.
    """
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    server.add_generic_rpc_handlers((EchoHandler(bytes(size)),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    await server.stop(0)


def main() -> None:
    """Runs the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, required=True, help="bytes of the answer")
    uvloop.run(serve(parser.parse_args().size))


if __name__ == "__main__":
    main()
