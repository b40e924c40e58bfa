"""Derives the options of a click command from a settings class."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

from marquee_services.server.settings import Settings

_R = TypeVar("_R")


def settings_options(
    cls: type[Settings], prefix: str
) -> Callable[[Callable[..., _R]], Callable[..., _R]]:
    """Decorates a click command with one option for each field of a settings class.

    The command receives the settings object as its argument `settings`. A value that the settings
    class rejects is a usage error.

    Args:
        cls: The settings class, whose fields are declared with `setting`.
        prefix: Prefix of the environment variables, for example `MARQUEE_GATEWAY`.
    """
    fields = [f for f in dataclasses.fields(cls) if f.metadata]

    def decorate(command: Callable[..., _R]) -> Callable[..., _R]:
        def run(**values: Any) -> _R:
            chosen = {f.name: values.pop(f.name) for f in fields}
            try:
                settings = cls(**chosen)
            except ValueError as error:
                raise click.UsageError(_with_flags(str(error), fields)) from error
            return command(settings=settings, **values)

        run.__name__, run.__doc__ = command.__name__, command.__doc__
        run.__dict__.update(command.__dict__)
        decorated: Callable[..., _R] = run
        # The decorator that is applied last is listed first in the help.
        for f in reversed(fields):
            decorated = _option(f, prefix)(decorated)
        return decorated

    return decorate


def _with_flags(message: str, fields: Sequence[dataclasses.Field[Any]]) -> str:
    """Returns a message of a settings class with field names replaced by flags.

    A name without an underscore is replaced only at the beginning, because elsewhere it may be an
    ordinary word.
    """
    for f in fields:
        name = re.escape(f.name)
        pattern = rf"(?<![\w/.'-]){name}(?![\w/.'-])" if "_" in f.name else rf"\A{name}(?=:)"
        message = re.sub(pattern, f"--{f.name.replace('_', '-')}", message)
    return message


def _option(
    f: dataclasses.Field[Any], prefix: str
) -> Callable[[Callable[..., _R]], Callable[..., _R]]:
    is_flag = isinstance(f.default, bool)
    flags = [f.name.replace("_", "-"), *f.metadata["alias"]]
    variable = f.metadata["env"] or f"{prefix}_{f.name.upper()}"
    return click.option(
        *(f"--{flag}/--no-{flag}" if is_flag else f"--{flag}" for flag in flags),
        f.name,
        default=f.default,
        type=None if is_flag else _type(f),
        cls=_Option,
        envvar=variable,
        env_alias=f.metadata["env_alias"],
        show_envvar=True,
        show_default=True,
        help=f.metadata["help"],
    )


class _Option(click.Option):
    """An option that also reads former environment variables, which the help does not list."""

    def __init__(self, *args: Any, env_alias: tuple[str, ...] = (), **kwargs: Any) -> None:
        """Creates an option.

        Args:
            args: See `click.Option`.
            env_alias: Environment variables that are read if `envvar` is not set.
            kwargs: See `click.Option`.
        """
        super().__init__(*args, **kwargs)
        self._env_alias = env_alias

    def resolve_envvar_value(self, ctx: click.Context) -> str | None:
        """Returns the value of the first variable that is set and not empty."""
        value = super().resolve_envvar_value(ctx)
        former = (os.environ.get(name) for name in self._env_alias)
        return value or next(filter(None, former), None)


def _type(f: dataclasses.Field[Any]) -> click.ParamType[Any]:
    low, high = f.metadata["low"], f.metadata["high"]
    if f.metadata["choices"]:
        return click.Choice(f.metadata["choices"])
    if isinstance(f.default, int):
        return click.IntRange(low, high)
    if isinstance(f.default, float):
        return click.FloatRange(low, high)
    return click.STRING
