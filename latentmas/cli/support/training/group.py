"""`latentmas train …`: a command for each loop of the registry, and one for a team as such."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from latentmas.cli.support.options import Device, Json, Rounds, Team
from latentmas.cli.support.placing import DeviceMap, MaxMemory, use_device_map
from latentmas.training.loops import Loop, in_order, loops

__all__ = ["WHOLE", "TrainGroup", "trains_loop", "trains_team"]

WHOLE = "TEAM"
"""Shown as the name of the command that takes a team where others take the name of a loop."""
ALIASES = {"edges": "edge"}
"""Names of loops in earlier versions."""

Data = Annotated[
    str,
    typer.Option(
        "--data",
        metavar="FILE",
        help="Training rows: a JSONL file, or hub:OWNER/NAME for a data set on the Hub.",
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        metavar="published:NAME",
        help="Published training set whose columns the files have, such as "
        "published:Sequential-Math.",
    ),
]
OutputDir = Annotated[
    Path, typer.Option(file_okay=False, help="Folder for checkpoints and the trained team.")
]
EvalData = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Rows to evaluate on at the end, as for --data."),
]
Steps = Annotated[
    int | None, typer.Option(min=1, help="Number of optimizer steps per loop; overrides --epochs.")
]
Epochs = Annotated[float | None, typer.Option(help="Number of passes over the data.")]
Batch = Annotated[int | None, typer.Option("--batch-size", min=1, help="Number of rows per batch.")]
Rate = Annotated[float | None, typer.Option(help="Peak learning rate.")]
Answer = Annotated[str | None, typer.Option(help="Field that holds the answer.")]
Seed = Annotated[
    int | None, typer.Option(help="Random seed for the data order and for untrained links.")
]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Field of the training configuration, as key=value; may be repeated."
    ),
]
Target = Annotated[
    list[str] | None,
    typer.Option(
        "--target", help="Field with an agent's own text, as agent=field; may be repeated."
    ),
]
Links = Annotated[
    list[str] | None,
    typer.Option(
        "--links", help="Links to train: outer, inner, all, none, or a link id; may be repeated."
    ),
]
AdapterAgents = Annotated[
    list[str] | None,
    typer.Option(
        "--train-adapters",
        metavar="AGENT",
        help="Agent whose own LoRA adapter is trained, or all; may be repeated.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Run one step, and print its cost beside the estimate.")
]
Passes = Annotated[
    int | None,
    typer.Option(min=1, help="Maximum number of parallel passes over the links' own outputs."),
]
Recipe = Annotated[str | None, typer.Option(help="Training recipe: on_policy or released.")]
Named = Annotated[
    list[str] | None,
    typer.Option("--loop", help="Loop to run instead of the chosen ones; may be repeated."),
]
PlanOnly = Annotated[bool, typer.Option("--dry-run", help="Only print the training plan.")]
LoopSets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Configuration field, as key=value or loop.key=value; may be repeated.",
    ),
]

Options = dict[str, tuple[Any, Any]]
"""Name of a parameter → its type and default; ... for one that is required."""

_FIRST: Options = {"team": (Team, ...), "data": (Data, ...), "output_dir": (OutputDir, ...)}
_FIRST |= {"eval_data": (EvalData, None), "columns": (Columns, None)}
_THEN: Options = {"steps": (Steps, None), "epochs": (Epochs, None), "batch_size": (Batch, None)}
_THEN |= {"learning_rate": (Rate, None), "answer_field": (Answer, None), "seed": (Seed, None)}
_THEN |= {"device": (Device, "cpu"), "device_map": (DeviceMap, None)}
_THEN |= {"max_memory": (MaxMemory, None), "resume": (Resume, False)}
_LAST: Options = {"set_": (Sets, None), "json": (Json, False)}
_OWN: dict[str, Options] = {
    "targets": {"target": (Target, None)},
    "train_links": {"links": (Links, None)},
    "train_adapters": {"train_adapters": (AdapterAgents, None)},
    "passes": {"passes": (Passes, None)},
    "rounds": {"rounds": (Rounds, None)},
    "recipe": {"recipe": (Recipe, None)},
    "dry_run": {"dry_run": (DryRun, False)},
}
"""Flags of a loop → the options of its command."""

Command = Callable[..., None]


def trains_loop(name: str, loop: type[Loop], run: Command) -> Command:
    """A command for one loop: its options are those of all loops and its own.

    Args:
        name: name of the loop.
        loop: its entry in the registry.
        run: called with the name and the options.
    """

    def command(**given: Any) -> None:
        use_device_map(given["device"], given.pop("device_map"), given.pop("max_memory"))
        run(name, **given)

    own = {key: value for flag in loop.flags for key, value in _OWN[flag].items()}
    _sign(command, {**_FIRST, **own, **_THEN, **_LAST}, loop.summary)
    return command


def trains_team(run: Command) -> Command:
    """The command for a team: the loops are chosen."""

    def command(**given: Any) -> None:
        use_device_map(given["device"], given.pop("device_map"), given.pop("max_memory"))
        run(**given)

    own = {"loop": (Named, None), **_OWN["targets"], **_OWN["train_adapters"]}
    last = {"dry_run": (PlanOnly, False), "set_": (LoopSets, None), "json": (Json, False)}
    text = "Train a team with the loops that its graph, its links and the data call for."
    _sign(command, {**_FIRST, **own, **_THEN, **last}, text)
    return command


def _sign(command: Any, options: Options, text: str) -> None:
    """Give a function the signature that typer reads."""
    keyword, empty = inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.empty
    command.__signature__ = inspect.Signature(
        [
            inspect.Parameter(
                name, keyword, annotation=kind, default=empty if default is ... else default
            )
            for name, (kind, default) in options.items()
        ]
    )
    command.__annotations__ = {name: kind for name, (kind, _) in options.items()}
    command.__doc__ = text


class TrainGroup(TyperGroup):
    """Commands by the registry, so that the loops of plug-ins are among them."""

    run_loop: Command
    run_team: Command

    def list_commands(self, ctx: Any) -> list[str]:
        """The command for a team, then the loops in their order."""
        return [WHOLE, *in_order()]

    def get_command(self, ctx: Any, name: str) -> Any:
        """The command of a loop; None if the loop is unknown."""
        name = ALIASES.get(name, name)
        if name == WHOLE:
            example = "latentmas train team.yaml --data rows.jsonl --output-dir out"
            return _command(WHOLE, trains_team(type(self).run_team), example)
        if name not in loops:
            return None
        example = (
            f"latentmas train {name} team.yaml --data rows.jsonl --output-dir out/{name} "
            "--steps 100"
        )
        return _command(name, trains_loop(name, loops.get(name), type(self).run_loop), example)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """A word that does not name a loop is a team, or an option of the command for teams."""
        if args[0] == WHOLE or self.get_command(ctx, args[0]) is None:
            rest = args[1:] if args[0] == WHOLE and not Path(WHOLE).exists() else args
            return "", self.get_command(ctx, WHOLE), rest
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Options before the team belong to the command for teams; --help alone is the group's."""
        if args and args[0].startswith("-") and args[0] not in ctx.help_option_names:
            args = [WHOLE, *args]
        return super().parse_args(ctx, args)


def _command(name: str, function: Command, example: str) -> TyperCommand:
    single = typer.Typer(
        context_settings={"help_option_names": ["-h", "--help"]}, add_completion=False
    )
    single.command(name, epilog=f"Example: {example}")(function)
    made: Any = typer.main.get_command(single)
    return made  # type: ignore[no-any-return]
