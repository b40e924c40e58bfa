"""Structured logging to stderr."""

from __future__ import annotations

import logging
import sys

import structlog

from marquee_core.redaction import redact
from marquee_services.server.telemetry.call_scope import add_to_log

# Control characters, and Unicode's line separators and direction marks.
_ESCAPES = {c: f"\\x{c:02x}" for c in (*range(0x20), *range(0x7F, 0xA0))}
_ESCAPES |= {c: f"\\u{c:04x}" for c in (0x2028, 0x2029, *range(0x202A, 0x202F))}
_ESCAPES_IN_LINES = {c: escape for c, escape in _ESCAPES.items() if c != ord("\n")}


def configure_logs(service: str, log_format: str, level: str) -> None:
    """Configures structlog for the process, and redirects Python's `logging` to it.

    Args:
        service: Name of the service, added to each entry.
        log_format: `json` (one object per line) or `text` (for terminals).
        level: The lowest level that is logged.
    """
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            add_to_log,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _redact,
            *([] if log_format == "json" else [_escape]),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(
            logging.getLevelNamesMapping()[level.upper()]
        ),
        logger_factory=structlog.WriteLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.bind_contextvars(service=service)
    logging.basicConfig(level=logging.WARNING, handlers=[_ToStructlog()], force=True)


class _ToStructlog(logging.Handler):
    """Forwards the log records of libraries to structlog."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(
            record.levelno,
            "library_log",
            logger=record.name,
            message=record.getMessage(),
            exc_info=record.exc_info,
        )


def _redact(
    _logger: structlog.typing.WrappedLogger, _method: str, entry: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Removes passwords from an entry."""
    return {key: redact(value) if isinstance(value, str) else value for key, value in entry.items()}


def _escape(
    _logger: structlog.typing.WrappedLogger, _method: str, entry: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Escapes control characters, with which a peer could forge log lines; JSON escapes them."""
    for key, value in entry.items():
        if isinstance(value, str):
            entry[key] = value.translate(_ESCAPES_IN_LINES if key == "exception" else _ESCAPES)
    return entry
