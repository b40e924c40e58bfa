"""What belongs to one call: its request id and its trace, for logs, errors and further calls."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from contextvars import ContextVar
from typing import Any, TypeAlias, cast

import structlog

from marquee_services.server import tracing

Pairs: TypeAlias = tuple[tuple[str, str], ...]

REQUEST_ID_KEY = "x-request-id"
# Ids that are logged as they are; others are replaced.
_REQUEST_ID = re.compile(r"[\w.:;,/+=@-]{1,128}", re.ASCII)
# Ids of the calls of a batch that a call to a backend names.
_MAX_JOINED = 8


class CallScope:
    """A call that is being answered.

    Attributes:
        request_id: The id that its caller gave it, or a new one.
        span: Its span; None without tracing.
    """

    __slots__ = ("request_id", "span")

    def __init__(self, request_id: str, span: Any = None) -> None:
        """Takes the id and the span."""
        self.request_id = request_id
        self.span = span

    @classmethod
    def begin(cls, method: str, context: Any) -> CallScope:
        """Begins the scope of a call, and echoes its id in the trailing metadata.

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
        """Ends the scope with the name of the call's status code."""
        if self.span is not None:
            tracing.end_span(self.span, code)

    @property
    def exemplar(self) -> dict[str, str] | None:
        """The exemplar of the call's latency: its trace, if that is recorded."""
        return None if self.span is None else tracing.exemplar(self.span)


def request_id_of(metadata: Iterable[tuple[str, Any]]) -> str:
    """The request id in a call's metadata, or a new one."""
    request_id = ""
    for key, value in metadata:
        if key == REQUEST_ID_KEY and isinstance(value, str) and _REQUEST_ID.fullmatch(value):
            request_id = value
    return request_id or os.urandom(16).hex()


_CURRENT: ContextVar[CallScope | None] = ContextVar("call_scope", default=None)


def current() -> CallScope | None:
    """The call that the running task answers; None if it answers none."""
    return _CURRENT.get()


def enter(scopes: Sequence[CallScope | None]) -> None:
    """Makes the running task, which works for the calls of a batch, part of their scope.

    Its logs and calls name the ids of all of them; its trace is that of the first one traced.
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
    """Adds the request id, and the trace if there is one, to an entry about a call."""
    scope = _CURRENT.get()
    if scope is not None:
        entry.setdefault("request_id", scope.request_id)
        if scope.span is not None:
            entry.update(tracing.log_fields(scope.span))
    return entry
