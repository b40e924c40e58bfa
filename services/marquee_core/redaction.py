"""Removes passwords and keys from text before it is logged or sent to callers."""

from __future__ import annotations

import re

HIDDEN = "***"

# RFC 3986: the user information before the host, and parameters whose names suggest secrets.
_USER_INFORMATION = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://[^\s/@:?#]*):[^\s/?#]*@", re.I)
_PARAMETER = re.compile(
    r"(?P<name>[?&;][\w.-]*(?:password|passwd|secret|token|signature|credential|api_?key|accesskey"
    r"|sig)[\w.-]*=)[^\s&;#'\"]+",
    re.I,
)


def redact(text: str) -> str:
    """Replaces passwords and secret query parameters in URLs with asterisks.

    `postgresql://app:hunter2@db/x?sslpassword=y` becomes
    `postgresql://app:***@db/x?sslpassword=***`. A `/`, `?` or `#` in a password must be
    percent-encoded, as in any URL.
    """
    if "://" not in text:
        return text
    text = _USER_INFORMATION.sub(rf"\g<scheme>:{HIDDEN}@", text)
    return _PARAMETER.sub(rf"\g<name>{HIDDEN}", text)
