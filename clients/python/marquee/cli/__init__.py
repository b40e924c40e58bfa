"""The `marquee` command line.

`_commands.py` has one command for each call of the client, `_feedback.py` has the commands for
feedback, and `_group.py` adds the commands of installed extras, such as `serve` and `train`. The
package may import the client and `marquee_start`. Start with `_commands.py`.
"""

from __future__ import annotations

from pathlib import Path

import click

import marquee
from marquee.cli._commands import COMMANDS
from marquee.cli._errors import EXIT_CODES_HELP
from marquee.cli._feedback import COMMANDS as FEEDBACK_COMMANDS
from marquee.cli._group import MarqueeGroup
from marquee.cli._options import BATCH_TIMEOUT, TIMEOUT, Connection, connection_tls

__all__ = ["Connection", "main"]

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.group(
    cls=MarqueeGroup,
    commands=(*COMMANDS, *FEEDBACK_COMMANDS),
    epilog=EXIT_CODES_HELP,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="marquee-recommender", message="%(prog)s %(version)s")
@click.option(
    "-a",
    "--address",
    default="localhost:50051",
    envvar="MARQUEE_ADDRESS",
    show_default=True,
    show_envvar=True,
    help="Address of the gateway.",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    help=f"Deadline in seconds. Default: {TIMEOUT:g}, or {BATCH_TIMEOUT:g} for a batch.",
)
@click.option("--tls", is_flag=True, help="Use TLS. Implied by the other --tls-… options.")
@click.option("--tls-ca", type=_FILE, help="PEM file of the certificate authorities to trust.")
@click.option("--tls-cert", type=_FILE, help="PEM file of the client's certificate chain.")
@click.option("--tls-key", type=_FILE, help="PEM file of the client's private key.")
@click.option("--tls-server-name", help="Name expected in the server's certificate.")
@click.option(
    "--token",
    envvar="MARQUEE_TOKEN",
    show_envvar=True,
    help="Bearer token. The environment is safer, because process listings show the command line.",
)
@click.option(
    "--token-file",
    type=_FILE,
    envvar="MARQUEE_TOKEN_FILE",
    show_envvar=True,
    help="File with the bearer token, reloaded when it changes. Cannot be combined with --token.",
)
@click.option(
    "--allow-insecure-token",
    is_flag=True,
    help="Allow sending the token in plaintext to another machine.",
)
@click.pass_context
def main(
    ctx: click.Context,
    address: str,
    timeout: float | None,
    tls: bool,
    tls_ca: Path | None,
    tls_cert: Path | None,
    tls_key: Path | None,
    tls_server_name: str | None,
    token: str | None,
    token_file: Path | None,
    allow_insecure_token: bool,
) -> None:
    """Marquee, a movie recommender.

    These options select the gateway that the commands call, and go before the command.
    """
    if token and token_file:
        raise click.UsageError("--token and --token-file cannot be combined")
    bearer_token = marquee.TokenFile(token_file) if token_file else token
    certificates = connection_tls(tls, tls_ca, tls_cert, tls_key, tls_server_name)
    ctx.obj = Connection(address, timeout, bearer_token, allow_insecure_token, certificates)
