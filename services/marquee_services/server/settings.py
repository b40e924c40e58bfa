"""Typed settings: one frozen dataclass per process, filled from flags and the environment."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

_T = TypeVar("_T")


def setting(
    default: Any,
    help: str,  # noqa: A002 - the word that click uses
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    env: str | None = None,
    alias: str | None = None,
) -> Any:
    """Declares a field of a settings class.

    Args:
        default: The default.
        help: What it is, with its unit.
        low: The lowest value, of a number.
        high: The highest value, of a number.
        choices: The values, of a string.
        env: The environment variable; by default made of the class's prefix and the field.
        alias: Another name of the flag.
    """
    metadata = {
        "help": help,
        "low": low,
        "high": high,
        "choices": choices,
        "env": env,
        "alias": alias,
    }
    return field(default=default, metadata=metadata)


def settings_options(
    cls: type[_T], prefix: str
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Decorates a click command: an option for each field; the command gets a `settings` object.

    Args:
        cls: A dataclass whose fields are declared with `setting`.
        prefix: Of the environment variables, for example `MARQUEE_GATEWAY`.
    """
    fields = [f for f in dataclasses.fields(cls) if f.metadata]  # type: ignore[arg-type]

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        def run(**values: Any) -> Any:
            picked = {f.name: values.pop(f.name) for f in fields}
            return command(settings=cls(**picked), **values)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__dict__.update(command.__dict__)
        wrapped: Callable[..., Any] = run
        for f in reversed(fields):
            flag = f.name.replace("_", "-")
            is_flag = isinstance(f.default, bool)
            names = [f"--{flag}/--no-{flag}" if is_flag else f"--{flag}"]
            if f.metadata["alias"]:
                names.append(f"--{f.metadata['alias']}")
            wrapped = click.option(
                *names,
                f.name,
                default=f.default,
                type=None if is_flag else _type(f),
                envvar=f.metadata["env"] or f"{prefix}_{f.name.upper()}",
                show_envvar=True,
                show_default=True,
                help=f.metadata["help"],
            )(wrapped)
        return wrapped

    return decorate


def _type(f: dataclasses.Field[Any]) -> click.ParamType[Any]:
    low, high = f.metadata["low"], f.metadata["high"]
    if f.metadata["choices"]:
        return click.Choice(f.metadata["choices"])
    if isinstance(f.default, int):
        return click.IntRange(low, high)
    if isinstance(f.default, float):
        return click.FloatRange(low, high)
    return click.STRING


@dataclass(frozen=True)
class ServerSettings:
    """What every server needs to know."""

    store: str = setting(
        "releases-store", "The release store: a folder or a URL.", env="MARQUEE_STORE"
    )
    listen: str = setting(
        "127.0.0.1:0", "Address to listen on: host:port (port 0 picks one) or unix:/path."
    )
    cache_dir: str = setting(
        "~/.cache/marquee/releases",
        "Folder for files of a remote release store.",
        env="MARQUEE_CACHE_DIR",
    )
    poll_interval: float = setting(
        1.0, "Seconds between looks at the promoted release.", low=0.05, high=3600
    )
    keep_releases: int = setting(
        2, "Releases held at once: the promoted one and others in use.", low=2, high=16
    )
    max_calls: int = setting(
        1024, "Calls in progress at once; more are shed with RESOURCE_EXHAUSTED.", low=1
    )
    default_deadline: float = setting(
        5.0, "Seconds a call may take when its caller set no deadline.", low=0.01
    )
    grace: float = setting(10.0, "Seconds that calls in progress have at shutdown.", low=0)
    tls_certificate: str = setting("", "PEM file of the server's certificate chain; empty: no TLS.")
    tls_key: str = setting("", "PEM file of the server's private key.")
    tls_client_ca: str = setting(
        "", "PEM file of the authorities whose client certificates are required (mTLS)."
    )
    metrics_port: int = setting(
        0, "Port of Prometheus metrics over HTTP; 0: none.", low=0, high=65535
    )
    log_format: str = setting("json", "Format of the log on stderr.", choices=("json", "text"))
    log_level: str = setting(
        "info", "Least level that is logged.", choices=("debug", "info", "warning", "error")
    )

    def __post_init__(self) -> None:
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise click.UsageError("--tls-certificate and --tls-key belong together")
        if self.tls_client_ca and not self.tls_certificate:
            raise click.UsageError("--tls-client-ca needs --tls-certificate")
        for path in (self.tls_certificate, self.tls_key, self.tls_client_ca):
            if path and not Path(path).is_file():
                raise click.UsageError(f"there is no file {path!r}")

    @property
    def cache(self) -> Path:
        """The folder for files of a remote store."""
        return Path(self.cache_dir).expanduser()
