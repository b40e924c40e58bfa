"""The reference server: a bare grpc.aio server that returns prepared bytes.

It runs on uvloop and has a single generic handler without serialisers, so its cost is that of
grpc.aio.
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
    """Answers every unary call with the same bytes."""

    def __init__(self, answer: bytes) -> None:
        """Stores the serialised answer."""

        async def echo(request: bytes, context: Any) -> bytes:
            return answer

        self._handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
            echo
        )

    def service(
        self, handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Implements `grpc.GenericRpcHandler.service`."""
        return self._handler


async def serve(size: int) -> None:
    """Writes its port to stdout, and serves until SIGTERM.

    Args:
        size: Size of the answer in bytes.
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
    """Parses the command line and runs the server."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, required=True, help="size of the answer in bytes")
    uvloop.run(serve(parser.parse_args().size))


if __name__ == "__main__":
    main()
