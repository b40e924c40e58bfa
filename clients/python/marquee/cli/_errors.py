"""Error messages and exit codes of the command line."""

from __future__ import annotations

import marquee
from marquee.cli.table import printable

PARTLY_FAILED = 10

_EXIT_CODES: dict[type[marquee.MarqueeError], int] = {
    marquee.InvalidArgument: 3,
    marquee.NotFound: 4,
    marquee.FailedPrecondition: 5,
    marquee.Unauthenticated: 6,
    marquee.PermissionDenied: 6,
    marquee.Unavailable: 7,
    marquee.Overloaded: 8,
    marquee.DeadlineExceeded: 9,
}

EXIT_CODES_HELP = """\b
Exit codes:
    0  success
    1  a bug in the server, or any other error
    2  incorrect usage of the command line
  130  interrupted

Exit codes of commands that call a gateway:
    3  a value violates a constraint of the API
    4  the gateway has no such item, model or release
    5  unusable page token, or the selected model cannot answer
    6  the token is missing, invalid or lacks a permission
    7  no gateway could be reached, or it is temporarily unable to answer
    8  the gateway rejected the call to shed load
    9  the deadline passed
   10  part of a batch failed

Exit codes of train, retrain --once, releases promote and experiments promote:
    3  the gate refused the release, or the ratings failed a check
    4  the release waits for --approve
"""


def exit_code(error: marquee.MarqueeError) -> int:
    """Returns the exit code for an error of a call."""
    return _EXIT_CODES.get(type(error), 1)


def describe(error: marquee.MarqueeError) -> str:
    """Describes an error in one line: its reason, then the invalid fields or the message."""
    fields = "; ".join(
        f"{v.field}: {v.description}" if v.field else v.description for v in error.violations
    )
    return printable(f"{error.reason or error.code}: {fields or error.message}")
