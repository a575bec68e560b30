"""Assembly of the command line: commands, global options, errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from latentmas import __version__
from latentmas.cli import (
    benchmarks,
    demo,
    env,
    errors,
    evaluate,
    graph,
    inspect,
    interop,
    mcp,
    measure,
    run,
    seeing,
    serve,
    share,
    train,
)
from latentmas.cli.support.console import emit, report
from latentmas.cli.support.plugins import import_plugin
from latentmas.cli.support.team import trust_files
from latentmas.redact import redact

__all__ = ["app"]


_UsageError: Any = typer.BadParameter.__base__
"""Click's; typer imports click in some versions and holds a copy in others."""


class _Guarded(TyperGroup):
    """The outermost group: turns every exception of a command into a message and an exit code."""

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
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    trust_files(trust_remote_code)
    for path in plugin or []:
        import_plugin(path)


_training = typer.Typer(
    cls=train.Training,
    help="Train the links of a team, with the loops that suit it or with one loop.",
)


@_training.callback()
def _train_options() -> None:
    """Nothing of its own: a group without a command needs a callback."""


app.command(epilog="Example: latentmas templates --json")(graph.templates)
app.command(epilog="Example: latentmas new my-team --template mixture --backbone Qwen/Qwen3-0.6B")(
    graph.new
)
app.command(epilog="Example: latentmas check my-team.yaml")(graph.check)
app.command(epilog="Example: latentmas plan my-team.yaml --rounds 5")(graph.plan)
app.command(epilog="Example: latentmas draw my-team.yaml -o my-team.svg")(graph.draw)
app.command(epilog='Example: latentmas run my-team.yaml "What is 3 + 4?"')(run.run)
app.command(epilog="Example: latentmas rerun run.json")(share.rerun)
app.command(epilog="Example: latentmas serve out/outer/team --port 8000")(serve.serve)
app.command(epilog="Example: latentmas mcp out/outer/team")(mcp.mcp)
app.add_typer(_training, name="train", no_args_is_help=True)
app.command(epilog="Example: latentmas report out/outer --png out/pictures")(seeing.report)
app.command(epilog="Example: latentmas inspect out/outer/team")(inspect.inspect)
app.command(epilog="Example: latentmas diff out/inner/team out/outer/team")(inspect.diff)
app.command(epilog="Example: latentmas push out/outer/team me/math-team --private")(share.push)
app.command(
    "eval",
    epilog="Example: latentmas eval out/outer/team --benchmark gsm8k --limit 100 -o gsm8k.jsonl",
)(evaluate.eval_)
app.command(epilog="Example: latentmas merge all.jsonl shard-0.jsonl shard-1.jsonl")(evaluate.merge)
app.command(epilog="Example: latentmas benchmarks gsm8k")(benchmarks.benchmarks)
app.command(epilog='Example: latentmas bench my-team.yaml "What is 3 + 4?" --samples 8')(
    measure.bench
)
app.command(
    epilog="Example: latentmas import-release sequential_light math-team --prompts pack.yaml"
)(interop.import_release)
app.command(
    epilog="Example: latentmas import-prompts path/to/clone --style mixture -o published.yaml"
)(interop.import_prompts)
app.command(epilog="Example: latentmas demo --output /tmp/demo")(demo.demo)
app.command(epilog="Example: latentmas errors LM103")(errors.errors)
app.command(epilog="Example: latentmas env --json")(env.env)
app.command(epilog="Example: latentmas schema > graph.schema.json")(graph.schema)
