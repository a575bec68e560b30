"""What hostile files are made from, one sound file of each form, and the loaders."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import latentmas as lm
from latentmas.interop._pickles import read_link
from latentmas.io import load_link_weights, load_links, rerun
from latentmas.prompts.packs import read_prompt_pack
from latentmas.runtime.loading.init_weights import meta_links
from latentmas.spec import read_jsonl
from latentmas.testing import tiny_backbone

RELEASE = Path(__file__).parent.parent / "published" / "releases" / "sequential_light"
ADAPTER = "planner/adapter(math).pt"
PROMPT = "{% if feedback %}{{ feedback }}{% endif %}{{ question }}"
ROW = {"question": "3 + 4?", "answer": "7"}


class Case(NamedTuple):
    """One hostile input."""

    name: str
    loader: str
    """Key of `LOADERS`, which also says what `spoil` gets."""
    spoil: Callable[[Path], object]
    """Damages a sound copy in place; a folder or a file, as the loader takes it."""
    told: str
    """Words of the error."""


class Base:
    """One sound file of each form, made when first needed."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def graph(self) -> lm.Graph:
        tiny = tiny_backbone("llama", 16, folder=self.root / "tiny")
        graph = lm.Graph("pair", inputs=["question"], rounds=2, latent_steps=2)
        graph.add_agent("planner", tiny, prompt=PROMPT, inner="recursive")
        graph.add_agent(
            "solver",
            tiny,
            prompt="{{ plan }} {{ question }}",
            inner="recursive",
            max_new_tokens=2,
        )
        graph.connect("planner", "solver.plan", link="recursive")
        graph.feedback("solver", "planner.feedback", link="recursive")
        return graph.output("solver")

    @cached_property
    def system(self) -> lm.System:
        return self.graph.compile().load()

    @cached_property
    def learner(self) -> lm.System:
        """The system that checkpoints are resumed with."""
        return self.graph.compile().load()

    @cached_property
    def team(self) -> Path:
        return self.system.save_pretrained(self.root / "team")

    @cached_property
    def links(self) -> Path:
        return self.system.save_links(self.root / "some.safetensors")

    @cached_property
    def yaml(self) -> Path:
        return self.graph.save(self.root / "graph.yaml")

    @cached_property
    def json(self) -> Path:
        return self.graph.save(self.root / "graph.json")

    @cached_property
    def plan(self) -> Path:
        return self.graph.compile().save(self.root / "plan.json")

    @cached_property
    def pack(self) -> Path:
        path = self.root / "pack.yaml"
        path.write_text("planner: 'Plan: {{ question }}'\nsolver: {system: S., prompt: P.}\n")
        return path

    @cached_property
    def rows(self) -> Path:
        path = self.root / "rows.jsonl"
        path.write_text(f"{json.dumps(ROW)}\n" * 3)
        return path

    @cached_property
    def run(self) -> Path:
        self.system.run(["3 + 4?"], manifest=self.root / "run.json")
        return self.root / "run.json"

    @cached_property
    def checkpoint(self) -> Path:
        self.trainer(self.graph.compile().load(), self.root / "trained").train()
        return self.root / "trained" / "checkpoint-1"

    def trainer(self, system: lm.System, folder: Path) -> lm.OuterTrainer:
        config = lm.OuterConfig(
            *(str(folder),),
            max_steps=2,
            use_cpu=True,
            disable_tqdm=True,
            probe_stability=False,
            save_strategy="steps",
            save_steps=1,
            logging_steps=1,
        )
        return lm.OuterTrainer(system, config, train_dataset=[ROW] * 4)

    def resume(self, path: Path) -> None:
        trainer = self.trainer(self.learner, path.parent / "resumed")
        trainer.train(resume_from_checkpoint=str(path))

    def copy(self, loader: str, folder: Path) -> Path:
        """A sound copy of what the loader takes, in a folder of its own."""
        source = Path(getattr(self, SOURCES[loader])) if SOURCES[loader] else RELEASE
        target = folder / source.name
        if source.is_dir():
            left_out = shutil.ignore_patterns("model.safetensors" if loader == "link file" else "")
            shutil.copytree(source, target, ignore=left_out)
        else:
            shutil.copyfile(source, target)
        return target

    def load(self, loader: str, path: Path) -> object:
        """Give a file to its loader."""
        return LOADERS[loader](self, path)


def _link_file(base: Base, path: Path) -> object:
    plan = lm.templates.sequential(
        planner=lm.Backbone(str(RELEASE / "planner")),
        critic=lm.Backbone(str(RELEASE / "critic")),
        solver=lm.Backbone(str(RELEASE / "solver")),
        link="recursive",
        inner="recursive",
    ).compile()
    return read_link(path / ADAPTER, meta_links(plan)["inner.planner"])


def _release(base: Base, path: Path) -> object:
    return lm.load_release("sequential_light", path, latent_steps=2)


def _release_with_pack(base: Base, path: Path) -> object:
    return lm.load_release("sequential_light", RELEASE, latent_steps=2, prompts=path)


def _compile(base: Base, path: Path) -> object:
    return lm.Graph.load(path).compile()


def _ask(base: Base, path: Path) -> object:
    """Load a graph file and run it on a long question."""
    question = "How many roads must a man walk down? " * 5
    return lm.Graph.load(path).compile().load().run([question], max_new_tokens=1)


def _training_rows(base: Base, path: Path) -> object:
    from latentmas.training.data import read_rows as read_training_rows

    return read_training_rows(path)


SOURCES = {
    "team": "team",
    "weights of a live team": "team",
    "file of links": "links",
    "inspect": "team",
    "diff": "team",
    "graph file": "yaml",
    "graph file (JSON)": "json",
    "run of a graph file": "yaml",
    "plan": "plan",
    "prompt pack": "pack",
    "prompt pack of a release": "pack",
    "link file": "",
    "release": "",
    "checkpoint": "checkpoint",
    "run manifest": "run",
    "rows": "rows",
    "training rows": "rows",
}
LOADERS: dict[str, Callable[[Base, Path], object]] = {
    "team": lambda base, path: lm.System.from_pretrained(path, reuse=base.system),
    "weights of a live team": lambda base, path: load_link_weights(base.system, path),
    "file of links": lambda base, path: load_links(base.system, path),
    "inspect": lambda base, path: lm.inspect_team(path),
    "diff": lambda base, path: lm.diff_teams(base.team, path),
    "graph file": _compile,
    "graph file (JSON)": _compile,
    "run of a graph file": _ask,
    "plan": lambda base, path: lm.Plan.open(path).load(),
    "prompt pack": lambda base, path: read_prompt_pack(path),
    "prompt pack of a release": _release_with_pack,
    "link file": _link_file,
    "release": _release,
    "checkpoint": lambda base, path: base.resume(path),
    "run manifest": lambda base, path: rerun(path, team=base.system),
    "rows": lambda base, path: read_jsonl(path),
    "training rows": _training_rows,
}


# --- damage that several files share ------------------------------------------------------------


def edit(change: Callable[[Any], object], name: str = "") -> Callable[[Path], object]:
    """Change the data of a JSON file; `name` is that of a file below the copy."""

    def spoil(path: Path) -> None:
        file = path / name if name else path
        data = json.loads(file.read_text())
        change(data)
        file.write_text(json.dumps(data))

    return spoil


def write(content: str | bytes, name: str = "") -> Callable[[Path], object]:
    """Replace the content of a file."""

    def spoil(path: Path) -> None:
        raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        (path / name if name else path).write_bytes(raw)

    return spoil


def swell(size: int, name: str = "") -> Callable[[Path], object]:
    """Make a file as long as that, without taking the space."""

    def spoil(path: Path) -> None:
        os.truncate(path / name if name else path, size)

    return spoil


def pipe(name: str) -> Callable[[Path], object]:
    """Put a pipe in a file's place: whoever opens it waits for ever."""

    def spoil(path: Path) -> None:
        (path / name).unlink()
        os.mkfifo(path / name)

    return spoil


def lead_out(name: str) -> Callable[[Path], object]:
    """Replace a file by a symbolic link to itself, outside of the folder."""

    def spoil(path: Path) -> None:
        outside = path.parent / "outside"
        shutil.move(path / name, outside)
        (path / name).symlink_to(outside)

    return spoil


DEEP = "[" * 100_000
TWICE = '{"a": 1, "a": 2}'
MANY = "[" + "[]," * 1_000_000 + "0]"
