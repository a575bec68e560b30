"""The commands by name; a command's own module is imported when the command is used."""

from __future__ import annotations

import importlib
from collections.abc import Iterator, MutableMapping
from typing import Any, NamedTuple

import typer

__all__ = ["COMMANDS", "Commands", "Entry"]


class Entry(NamedTuple):
    """Where a command is, and what `latentmas --help` and its own help say of it."""

    home: str
    """Module under `latentmas.cli` and name in it, as `module:name`."""
    summary: str
    """First paragraph of its docstring."""
    example: str
    """A call, shown at the end of its help."""


COMMANDS: dict[str, Entry] = {
    "templates": Entry(
        "graph:templates",
        "List the templates that `new` can start from.",
        "latentmas templates --json",
    ),
    "new": Entry(
        "graph:new",
        "Write an editable graph file and its prompts from a template.",
        "latentmas new my-team --template mixture --backbone Qwen/Qwen3-0.6B",
    ),
    "check": Entry(
        "graph:check",
        "Compile a graph and report every problem at once, with its fix; loads no weights.",
        "latentmas check my-team.yaml",
    ),
    "plan": Entry(
        "graph:plan",
        "Show what a graph compiles to, or estimate a run of it on a machine; loads no weights.",
        "latentmas plan my-team.yaml --rounds 5",
    ),
    "draw": Entry(
        "graph:draw",
        "Draw a graph offline; loads no weights.",
        "latentmas draw my-team.yaml -o my-team.svg",
    ),
    "run": Entry(
        "run:run",
        "Run a team on a question, or on the rows of a JSONL file.",
        'latentmas run my-team.yaml "What is 3 + 4?"',
    ),
    "rerun": Entry(
        "saved.share:rerun",
        "Repeat a recorded run and compare it token by token; exit code 1 on a difference.",
        "latentmas rerun run.json",
    ),
    "serve": Entry(
        "serving.serve:serve",
        "Serve a team over HTTP, with the endpoints of the OpenAI API.",
        "latentmas serve out/outer/team --port 8000",
    ),
    "mcp": Entry(
        "serving.mcp:mcp",
        "Serve a team as a tool for assistants and agents (Model Context Protocol).",
        "latentmas mcp out/outer/team",
    ),
    "report": Entry(
        "seeing:report",
        "Report on a training run: curves and depth maps as an HTML page; loads no weights.",
        "latentmas report out/outer --png out/pictures",
    ),
    "inspect": Entry(
        "saved.inspect:inspect",
        "Describe a saved team: links, norms, base models, trainings; exit code 1 on a problem.",
        "latentmas inspect out/outer/team",
    ),
    "diff": Entry(
        "saved.inspect:diff",
        "Compare two saved teams, plan and weights; exit code 1 on a difference.",
        "latentmas diff out/inner/team out/outer/team",
    ),
    "push": Entry(
        "saved.share:push",
        "Push a saved team to the hub in one commit, with the token of HF_TOKEN or "
        "`hf auth login`.",
        "latentmas push out/outer/team me/math-team --private",
    ),
    "eval": Entry(
        "evaluate:eval_",
        "Score a team's answers with a 95 % interval, beside its controls and the cost of each.",
        "latentmas eval out/outer/team --benchmark gsm8k --limit 100 -o gsm8k.jsonl",
    ),
    "sweep": Entry(
        "studying.sweep:sweep",
        "Train and evaluate a team at all combinations of settings, and compare them.",
        "latentmas sweep my-team.yaml --data test.jsonl --train-data train.jsonl "
        "--over link=soft_token,recursive --over latent_steps=8,16 --seeds 3 -o study",
    ),
    "merge": Entry(
        "evaluate:merge",
        "Join the results files of all shards of an evaluation, and score them.",
        "latentmas merge all.jsonl shard-0.jsonl shard-1.jsonl",
    ),
    "benchmarks": Entry(
        "benchmarks:benchmarks",
        "List benchmarks with their data, grader and licence, or describe one.",
        "latentmas benchmarks gsm8k",
    ),
    "baseline": Entry(
        "studying.baselines:baseline",
        "Compare a team with a baseline on the same rows, and say what each has cost.",
        "latentmas baseline lora out/team --data test.jsonl --train-data train.jsonl -o study",
    ),
    "baselines": Entry(
        "studying.baselines:baselines",
        "List baselines to compare a team with, or describe one with its options.",
        "latentmas baselines lora",
    ),
    "bench": Entry(
        "measure:bench",
        "Time executors on a team: seconds, ratios, and whether all write the same tokens.",
        'latentmas bench my-team.yaml "What is 3 + 4?" --samples 8',
    ),
    "costs": Entry(
        "studying.costs:costs",
        "Measure a team against its text twin: time, tokens, memory, energy and price by rounds.",
        "latentmas costs out/outer/team --data rows.jsonl --limit 32 --rounds 1,2,3",
    ),
    "analyse": Entry(
        "studying.analyse:analyse",
        "Analyse a team's messages by round: distance to the answer, gradients, and what they say.",
        "latentmas analyse out/outer/team --data rows.jsonl --limit 32 -o analysis",
    ),
    "paper": Entry(
        "studying.paper:paper",
        "Run a small version of the paper's tables, and build one report, claim by claim.",
        "latentmas paper --preset small -o paper-out",
    ),
    "import-release": Entry(
        "saved.interop:import_release",
        "Write a published RecursiveMAS system as a saved team, which only names its backbones.",
        "latentmas import-release sequential_light math-team --prompts pack.yaml",
    ),
    "import-prompts": Entry(
        "saved.interop:import_prompts",
        "Import the published prompts from a clone of RecursiveMAS; this runs code from the clone.",
        "latentmas import-prompts path/to/clone --style mixture -o published.yaml",
    ),
    "demo": Entry(
        "demo:demo",
        "Train and run a small team whose agents must share what they know; offline, on the CPU.",
        "latentmas demo --output /tmp/demo",
    ),
    "errors": Entry(
        "errors:errors",
        "Explain error codes: what each means, an example, and what to do.",
        "latentmas errors LM103",
    ),
    "env": Entry(
        "env:env",
        "Print versions, devices, platform and sandbox facts for bug reports.",
        "latentmas env --json",
    ),
    "schema": Entry(
        "graph:schema",
        "Print the JSON Schema of graph files, for completion in editors.",
        "latentmas schema > graph.schema.json",
    ),
    "train": Entry(
        "train:training",
        "Train the links of a team, with the loops that suit it or with one loop.",
        "",
    ),
}


class Commands(MutableMapping[str, Any]):
    """Commands that are made when they are looked up; further ones can be set."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}
        self._names = dict.fromkeys(COMMANDS)

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            self._made[name] = _make(name, COMMANDS[name])
        return self._made[name]

    def __setitem__(self, name: str, command: Any) -> None:
        self._names[name] = None
        self._made[name] = command

    def __delitem__(self, name: str) -> None:
        del self._names[name]
        self._made.pop(name, None)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def summary(self, name: str) -> Any:
        """A command that only has a name and a summary, unless the command is made already."""
        if name in self._made or name not in COMMANDS:
            return self.get(name)
        return typer.core.TyperCommand(name, help=COMMANDS[name].summary)


def _make(name: str, entry: Entry) -> Any:
    """The command of an entry, with its options."""
    module, _, function = entry.home.partition(":")
    found = getattr(importlib.import_module(f"latentmas.cli.{module}"), function)
    if isinstance(found, typer.Typer):
        group: Any = typer.main.get_group(found)
        group.name = name
        return group
    single = typer.Typer(add_completion=False)
    single.command(name, epilog=f"Example: {entry.example}")(found)
    return typer.main.get_command(single)
