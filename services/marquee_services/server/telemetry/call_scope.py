"""The scope of a call: its request id and trace, for logs, errors and calls to backends."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from typing import Any, cast

import structlog

from marquee_services.server.telemetry import tracing

REQUEST_ID_KEY = "x-request-id"
# Request ids that are safe to log; others are replaced with new ones.
_REQUEST_ID = re.compile(r"[\w.:;,/+=@-]{1,128}", re.ASCII)
# The most request ids that are joined for a call to a backend.
_MAX_JOINED = 8


class CallScope:
    """A call that is being answered.

    Attributes:
        request_id: The request id from the caller, or a new one.
        span: The call's span; None without tracing.
    """

    __slots__ = ("request_id", "span")

    def __init__(self, request_id: str, span: Any = None) -> None:
        """Creates a scope from a request id and a span."""
        self.request_id = request_id
        self.span = span

    @classmethod
    def begin(cls, method: str, context: Any) -> CallScope:
        """Begins the scope of a call, and echoes its request id in the trailing metadata.

        Args:
            method: The method's full name, `/package.Service/Method`.
            context: The call.
        """
        metadata = cast("Iterable[tuple[str, Any]]", context.invocation_metadata() or ())
        scope = cls(request_id_of(metadata))
        context.set_trailing_metadata(((REQUEST_ID_KEY, scope.request_id),))
        tracer = tracing.active()
        if tracer is not None:
            scope.span = tracer.begin_server_span(method, metadata)
            scope.span.set_attribute("marquee.request_id", scope.request_id)
        _CURRENT.set(scope)
        return scope

    def end(self, code: str) -> None:
        """Ends the scope, with the name of the call's status code."""
        if self.span is not None:
            tracing.end_span(self.span, code)

    @property
    def exemplar(self) -> dict[str, str] | None:
        """The exemplar of the call's latency: the trace, if it is sampled."""
        return None if self.span is None else tracing.exemplar(self.span)


def request_id_of(metadata: Iterable[tuple[str, Any]]) -> str:
    """Returns the request id in a call's metadata, or a new one."""
    request_id = ""
    for key, value in metadata:
        if key == REQUEST_ID_KEY and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            request_id = value
    # Not `os.urandom`, a system call: the id need not be secret.
    return request_id or f"{random.getrandbits(128):032x}"


_CURRENT: ContextVar[CallScope | None] = ContextVar("call_scope", default=None)


def current() -> CallScope | None:
    """Returns the scope of the call that the current task answers; None if there is none."""
    return _CURRENT.get()


def enter(scopes: Sequence[CallScope | None]) -> None:
    """Sets the current task's scope to that of all calls in a micro-batch.

    Its logs and calls carry the request ids of the first eight calls, and the trace of the first
    traced one.
    """
    present = [scope for scope in scopes if scope is not None]
    if not present:
        _CURRENT.set(None)
        return
    if len(present) == 1:
        _CURRENT.set(present[0])
        return
    ids = dict.fromkeys(scope.request_id for scope in present)
    spans = [scope.span for scope in present if scope.span is not None]
    joined = CallScope(",".join(list(ids)[:_MAX_JOINED]), spans[0] if spans else None)
    _CURRENT.set(joined)


def add_to_log(
    _logger: structlog.typing.WrappedLogger, _method: str, entry: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Adds the request id, and the trace if there is one, to a log entry about a call."""
    scope = _CURRENT.get()
    if scope is not None:
        entry.setdefault("request_id", scope.request_id)
        if scope.span is not None:
            entry.update(tracing.log_fields(scope.span))
    return entry
