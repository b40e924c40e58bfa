"""The `marquee` command group: the client's commands, and commands that extras add.

An extra adds a command by an entry point in the group `marquee.commands`. The command is imported
only when it is invoked, so `marquee --help` and the client's commands start quickly and do not need
the extra's dependencies.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

import marquee
from marquee.cli._errors import describe, exit_code
from marquee_start import INTERRUPTED, ended_by_interrupt

ENTRY_POINTS = "marquee.commands"

# The commands of this project's extras: the extra to install, and the short help for `--help`.
_OWN_COMMANDS = {
    "data": ("trainer", "Show how ratings are interpreted."),
    "demo": ("trainer", "Train on a sample, serve it, and recommend."),
    "evaluate": ("trainer", "Train all models and report their accuracy."),
    "experiments": ("server", "Compare releases or blends with real users."),
    "releases": ("server", "List, show, promote and roll back releases."),
    "retrain": ("trainer", "Train, gate, promote and prune periodically."),
    "serve": ("gateway", "Run a server: standalone, gateway, cf or inference."),
    "train": ("trainer", "Train all models and publish a release."),
    "tune": ("trainer", "Search for hyperparameters of the models."),
}

# Modules that identify the missing extra more precisely than the command does.
_EXTRA_OF_MODULE = {
    "alembic": "feedback",
    "keras": "trainer",
    "polars": "trainer",
    "psycopg": "feedback",
    "ray": "ray",
    "scipy": "cf",
    "sqlalchemy": "feedback",
    "tensorflow": "inference",
    "tensorflow_datasets": "trainer",
}


class MarqueeGroup(click.Group):
    """A command group that loads plug-in commands and converts errors of calls to exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Returns the names of all commands."""
        return sorted({*super().list_commands(ctx), *_plug_ins()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Returns a command by name; a plug-in command is imported now."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in _plug_ins():
            return own
        try:
            with ended_by_interrupt():
                command = _plug_ins()[cmd_name].load()
        except ModuleNotFoundError as error:
            raise _missing_extra(cmd_name, error) from error
        if not isinstance(command, click.Command):
            raise click.ClickException(f"the entry point of {cmd_name!r} is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes the list of commands without importing any plug-in."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.commands.get(name)
            if command is not None:
                rows.append((name, command.get_short_help_str(limit=60)))
            else:
                rows.append((name, _OWN_COMMANDS.get(name, ("", "Command of another package."))[1]))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command; if a call fails, prints one line and exits with the code of the error."""
        try:
            return super().invoke(ctx)
        except marquee.MarqueeError as error:
            click.echo(f"Error: {describe(error)}{_hint(error)}", err=True)
            raise click.exceptions.Exit(exit_code(error)) from error
        except click.NoSuchOption as error:
            if any(error.option_name in parameter.opts for parameter in self.params):
                command, option = ctx.invoked_subcommand, error.option_name
                hint = f"{option} must precede the command: marquee {option} … {command}"
                raise click.UsageError(hint, error.ctx) from error
            raise
        except ModuleNotFoundError as error:
            raise _missing_extra(ctx.invoked_subcommand or "", error) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None


def _hint(error: marquee.MarqueeError) -> str:
    """Returns a hint for the case that no gateway could be reached."""
    if isinstance(error, marquee.Unavailable) and not error.reason:
        return "; start one with `marquee serve standalone`, or select one with `--address`"
    return ""


def _plug_ins() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def _missing_extra(command: str, error: ModuleNotFoundError) -> Exception:
    """Returns an error that names the extra to install.

    If the missing module is part of this project, or the command is from another package, `error`
    itself is returned, so that its traceback is shown.
    """
    module = (error.name or "").partition(".")[0]
    if module.startswith("marquee") or command not in _OWN_COMMANDS:
        return error
    extra = _EXTRA_OF_MODULE.get(module, _OWN_COMMANDS[command][0])
    return click.ClickException(
        f"`marquee {command}` needs {module}, which is not installed: "
        f"pip install 'marquee-recommender[{extra}]'"
    )
