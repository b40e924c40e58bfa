"""The `marquee` command: its own commands, and those that extras add to it.

An extra adds a command by an entry point in the group `marquee.commands`. It is imported when it
is called, not before, so `marquee --help` and the client's commands stay quick and need no extra.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

import marquee
from marquee.cli._errors import INTERRUPTED, describe, exit_code

ENTRY_POINTS = "marquee.commands"

# What our own extras add, as `--help` lists it: the extra to install and the short help.
_KNOWN = {
    "demo": ("trainer", "Train on a sample, serve it, and recommend."),
    "evaluate": ("trainer", "Train every model and report how good it is."),
    "releases": ("server", "List, show, promote and roll back releases."),
    "serve": ("gateway", "Run a service: gateway, cf or inference."),
    "train": ("trainer", "Train every model and publish a release."),
    "tune": ("trainer", "Search configurations of the models."),
}

# Modules that tell more of what is missing than the command does.
_EXTRA_OF_MODULE = {
    "keras": "trainer",
    "matplotlib": "trainer",
    "scipy": "cf",
    "tensorflow": "inference",
    "tensorflow_datasets": "trainer",
}


class MarqueeGroup(click.Group):
    """A group that finds commands by entry points and ends calls' errors in exit codes."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names of all commands."""
        return sorted({*super().list_commands(ctx), *_plug_ins()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of a name, imported here if an extra adds it."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name not in _plug_ins():
            return own
        try:
            command = _plug_ins()[cmd_name].load()
        except ModuleNotFoundError as error:
            raise _missing_extra(cmd_name, error) from error
        if not isinstance(command, click.Command):
            raise click.ClickException(f"the entry point of {cmd_name!r} is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Lists the commands, and imports none of our own extras for it."""
        rows = []
        for name in self.list_commands(ctx):
            command = self.commands.get(name)
            if command is not None:
                rows.append((name, command.get_short_help_str(limit=60)))
            else:
                rows.append((name, _KNOWN.get(name, ("", "A command of another package."))[1]))
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs a command, and ends it with the exit code of what went wrong."""
        try:
            return super().invoke(ctx)
        except marquee.MarqueeError as error:
            click.echo(f"Error: {describe(error)}{_hint(error, ctx)}", err=True)
            raise click.exceptions.Exit(exit_code(error)) from error
        except ModuleNotFoundError as error:
            raise _missing_extra(ctx.invoked_subcommand or "", error) from error
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED) from None


def _hint(error: marquee.MarqueeError, ctx: click.Context) -> str:
    """What to look at when it was not a gateway that sent the error."""
    if isinstance(error, marquee.Unavailable) and not error.reason:
        return f" (is a gateway serving at {ctx.obj.address}?)"
    return ""


def _plug_ins() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}


def _missing_extra(command: str, error: ModuleNotFoundError) -> Exception:
    """What to tell of a module that is missing; the error itself if the module is our own."""
    module = (error.name or "").partition(".")[0]
    if module.startswith("marquee") or command not in _KNOWN:
        return error
    extra = _EXTRA_OF_MODULE.get(module, _KNOWN[command][0])
    return click.ClickException(
        f"`marquee {command}` needs {module}, which is not installed: "
        f"pip install 'marquee[{extra}]'"
    )
