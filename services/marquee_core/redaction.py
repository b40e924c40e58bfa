"""Takes passwords and keys out of texts that are logged or sent to callers."""

from __future__ import annotations

import re

HIDDEN = "***"

# RFC 3986: the user information before the host, and parameters whose names speak of secrets.
_USER_INFORMATION = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://[^\s/@:?#]*):[^\s/?#]*@", re.I)
_PARAMETER = re.compile(
    r"(?P<name>[?&;][\w.-]*(?:password|passwd|secret|token|signature|credential|api_?key|accesskey"
    r"|sig)[\w.-]*=)[^\s&;#'\"]+",
    re.I,
)


def redact(text: str) -> str:
    """Replaces passwords in URLs, and parameters of URLs that hold secrets, by asterisks.

    `postgresql://app:hunter2@db/x?sslpassword=y` becomes
    `postgresql://app:***@db/x?sslpassword=***`. A password must not contain `/`, `?` or `#`, as
    URLs require.
    """
    if "://" not in text:
        return text
    text = _USER_INFORMATION.sub(rf"\g<scheme>:{HIDDEN}@", text)
    return _PARAMETER.sub(rf"\g<name>{HIDDEN}", text)
