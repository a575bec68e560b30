"""Assembly of the command line: global options, errors, commands on demand."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from latentmas import __version__
from latentmas.cli.commands import Commands
from latentmas.cli.support.console import emit, report
from latentmas.redact import redact

__all__ = ["app"]


_UsageError: Any = typer.BadParameter.__base__
"""Click's; typer imports click in some versions and holds a copy in others."""


class _Guarded(TyperGroup):
    """The outermost group: turns every exception of a command into a message and an exit code."""

    commands: Any

    def __init__(self, *, commands: Any = None, **attrs: Any) -> None:
        super().__init__(commands=commands, **attrs)
        further, self.commands, self._listing = dict(self.commands), Commands(), False
        self.commands.update(further)

    def list_commands(self, ctx: Any) -> list[str]:
        """All names."""
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command; while the help is written, its summary, so that nothing is imported."""
        if self._listing:
            return self.commands.summary(cmd_name)
        return self.commands.get(cmd_name)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help from the commands' summaries."""
        self._listing = True
        try:
            super().format_help(ctx, formatter)
        finally:
            self._listing = False

    def invoke(self, ctx: Any) -> Any:
        """Run the command; usage errors and a closed pipe are left to typer."""
        try:
            return super().invoke(ctx)
        except _UsageError as error:
            error.message = redact(error.message)
            raise
        except (typer.Exit, typer.Abort, BrokenPipeError):
            raise
        except (Exception, KeyboardInterrupt) as error:
            raise typer.Exit(report(error, debug=ctx.params["debug"])) from None


app = typer.Typer(
    name="latentmas",
    cls=_Guarded,
    help="Teams of frozen language models that hand each other hidden states.",
    epilog="Start with `latentmas demo`: it trains a small team offline and shows its answers. "
    "For a team of your own: `latentmas new my-team`, `latentmas check my-team.yaml`, "
    "`latentmas plan my-team.yaml`; train it before you run it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        emit(f"latentmas {__version__}")
        raise typer.Exit


@app.callback()
def _global_options(
    plugin: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE.py",
            help="Python file to import first; may be repeated.",
        ),
    ] = None,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code",
            help="Allow files to request code from a model's repository; read that code first.",
        ),
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    from latentmas.cli.support.plugins import import_plugin
    from latentmas.cli.support.team import trust_files

    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    trust_files(trust_remote_code)
    for path in plugin or []:
        import_plugin(path)
