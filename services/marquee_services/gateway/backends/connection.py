"""The connection to a server of a backend, which is reopened when certificates are renewed."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import structlog

from marquee.v1 import scoring_service_pb2_grpc
from marquee_services.gateway.backends.addresses import Address
from marquee_services.server.identity.certificates import Certificates
from marquee_services.server.runtime import MAX_MESSAGE_BYTES

_log = structlog.get_logger()

_CHANNEL_OPTIONS = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Do not share connections between channels: a new channel must present the new certificate.
    ("grpc.use_local_subchannel_pool", 1),
    # Pings detect a frozen server. `ping_timeout_ms` is also required: the keepalive timeout alone
    # does not end open streams.
    ("grpc.keepalive_time_ms", 1_000),
    ("grpc.keepalive_timeout_ms", 1_000),
    ("grpc.http2.ping_timeout_ms", 1_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1_000),
)

# Seconds that a new connection may take to be established, and that calls in flight have to finish
# on the old one.
_CONNECT_S, _GRACE_S = 2.0, 30.0


class Connection:
    """A channel to a server, with its stub.

    Attributes:
        stub: The stub of the current channel.
    """

    def __init__(self, address: Address, certificates: Certificates | None) -> None:
        """Opens the channel, which connects on its first call.

        Args:
            address: The server's address.
            certificates: The authorities that sign the server's certificate, and the certificate
                that the gateway presents; None to connect without TLS.
        """
        self._address = address
        self._certificates = certificates
        self._version = 0 if certificates is None else certificates.version
        self._channel = self._open()
        self.stub = scoring_service_pb2_grpc.ScoringServiceStub(self._channel)
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def is_ready(self) -> bool:
        """Whether the channel is connected."""
        return self._channel.get_state() is grpc.ChannelConnectivity.READY

    async def renew(self, was_working: bool) -> None:
        """Opens a new channel if the certificates have changed; calls in flight keep the old one.

        Args:
            was_working: Whether the old channel works. If it does, it is kept until the new one is
                connected; if connecting fails, the next call of this method tries again.
        """
        if self._certificates is None or self._certificates.version == self._version:
            return
        version, channel = self._certificates.version, self._open()
        if was_working:
            try:
                await asyncio.wait_for(channel.channel_ready(), _CONNECT_S)
            except TimeoutError:
                _log.warning("backend_refuses_new_certificate", address=self._address.target)
                await channel.close()
                return
        closing = asyncio.create_task(self._channel.close(_GRACE_S))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)
        self._channel, self._version = channel, version
        self.stub = scoring_service_pb2_grpc.ScoringServiceStub(channel)
        _log.info("backend_reconnected", address=self._address.target)

    async def close(self) -> None:
        """Closes the channel and the channels that it replaced."""
        for closing in self._closing:
            closing.cancel()
        await self._channel.close()

    def _open(self) -> grpc.aio.Channel:
        options: Any = _CHANNEL_OPTIONS
        if self._address.authority:
            # The channel dials an IP address, but the certificate names the host.
            options += (("grpc.default_authority", self._address.authority),)
        if self._certificates is None:
            return grpc.aio.insecure_channel(self._address.target, options)
        credentials = self._certificates.channel_credentials()
        return grpc.aio.secure_channel(self._address.target, credentials, options)
