"""Shared by the commands: options of the release store, and expected errors in one line.

Importing this module is cheap, so that `marquee --help` stays fast.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

from marquee_services.server.settings import ServerSettings


@contextmanager
def errors_as_one_line() -> Iterator[None]:
    """Reports expected errors in one line; other errors keep their tracebacks.

    Expected errors are damaged or missing releases, unusable files and addresses, and stores whose
    URL is wrong or requires a package that is not installed.
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
        signed: What the signing key signs, for the help text.
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
            help="PEM file of Ed25519 public keys; only releases signed with one of them are "
            "accepted.",
        ),
        click.option(
            "--signing-key",
            default="",
            envvar="MARQUEE_SIGNING_KEY",
            show_envvar=True,
            help=f"PEM file of the Ed25519 private key that signs {signed}; required with "
            "--trusted-keys.",
        ),
    )

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate
