"""What the commands of servers and releases share: expected errors, and settings of TensorFlow.

Importing this module is cheap, so that `marquee --help` stays fast.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from marquee_services.server.settings import ServerSettings


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


def store_options(signed: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Adds the options `--store`, `--trusted-keys` and `--signing-key` to a command.

    Args:
        signed: What the signing key signs, for the help.
    """
    options = (
        click.option(
            "--store",
            default=ServerSettings.store,
            envvar="MARQUEE_STORE",
            show_envvar=True,
            show_default=True,
            help="Release store: a folder or a URL.",
        ),
        click.option(
            "--trusted-keys",
            default="",
            envvar="MARQUEE_TRUSTED_KEYS",
            show_envvar=True,
            help="PEM file of Ed25519 public keys; only releases that one of them has signed are "
            "accepted.",
        ),
        click.option(
            "--signing-key",
            default="",
            envvar="MARQUEE_SIGNING_KEY",
            show_envvar=True,
            help=f"PEM file of the Ed25519 private key that signs {signed}; needed with "
            "--trusted-keys.",
        ),
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
