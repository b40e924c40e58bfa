"""How the command line ends: messages on stderr and exit codes."""

from __future__ import annotations

import marquee
from marquee.cli.table import printable

INTERRUPTED = 130
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
    0  done
    1  a defect: of the server, or any other error
    2  the command line was not understood
    3  a value breaks a constraint of the API
    4  no such item, model or release
    5  the page token cannot be honoured, or the model cannot answer
    6  the token is missing, or does not allow this
    7  no gateway could be reached, or it has no release yet
    8  the gateway sheds load
    9  no answer in time
   10  a part of a batch failed
  130  interrupted
"""


def exit_code(error: marquee.MarqueeError) -> int:
    """The exit code for an error of a call."""
    return _EXIT_CODES.get(type(error), 1)


def describe(error: marquee.MarqueeError) -> str:
    """The error in one line: its reason, then the fields at fault or else the message."""
    fields = "; ".join(f"{fault.field}: {fault.description}" for fault in error.violations)
    return printable(f"{error.reason or error.code}: {fields or error.message}")
