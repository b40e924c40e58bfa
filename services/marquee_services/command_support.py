"""What the commands of servers and releases share: expected errors, and settings of TensorFlow.

Importing this module is cheap, so that `marquee --help` stays fast.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import click


def leave_keras_out() -> None:
    """Keeps TensorFlow from importing Keras, which serving does not need.

    With this setting TensorFlow looks for the legacy Keras instead, and goes on if that is not
    installed.
    """
    os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")


@contextmanager
def errors_as_one_line() -> Iterator[None]:
    """Reports expected errors in one line; any other error keeps its traceback.

    Expected are damaged or missing releases, files and addresses that cannot be used, and stores
    whose URL is wrong or needs a package that is not installed.
    """
    from marquee_core.errors import ArtifactError
    from marquee_core.redaction import redact
    from marquee_core.release.signing import KeyFileError
    from marquee_core.release.store import StoreURLError

    try:
        yield
    except (ArtifactError, KeyFileError, StoreURLError, OSError) as error:
        raise click.ClickException(redact(" ".join(str(error).split()))) from error
