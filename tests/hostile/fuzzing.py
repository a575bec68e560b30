"""What is fuzzed: each loader with its seeds, the damage that fits them, and one case of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from hypothesis import strategies as st

import latentmas as lm
from latentmas.compiler import compile_graph
from latentmas.interop._pickles import read_link
from latentmas.interop._sources import FolderSource
from latentmas.interop._styles import find_style
from latentmas.interop.release import _link_files
from latentmas.io import RunManifest, load_link_weights, load_links
from latentmas.io.runs.rerun import _check_team, _samples
from latentmas.plan import BackboneInfo
from latentmas.prompts.packs import read_prompt_pack
from latentmas.runtime.loading.init_weights import meta_links
from latentmas.spec import GraphSpec, read_jsonl
from latentmas.training.data import read_rows as read_training_rows
from latentmas.training.trainer.checkpoint import check_checkpoint, find_checkpoint
from tests.hostile.base import ADAPTER, PROMPT, RELEASE, Base
from tests.hostile.mutations import (
    Seeds,
    damaged_archive,
    damaged_header,
    damaged_json,
    damaged_lines,
    damaged_template,
    damaged_yaml,
)

__all__ = ["TARGETS", "Fuzz", "Target"]

FACTS = BackboneInfo(model_type="llama", hidden_size=16, vocab_size=64, num_layers=2)
STATES = ("trainer_state.json", "optimizer.pt", "scheduler.pt", "rng_state.pth")


Damage = Callable[[Seeds], st.SearchStrategy[bytes]]
Load = Callable[["Fuzz", Path], object]


class Target(NamedTuple):
    """One loader."""

    name: str
    damage: Damage
    file: str
    """The file that is damaged, below the scratch folder."""
    seeds: Callable[[Fuzz], Seeds]
    load: Load


class Fuzz:
    """Sound files in a scratch folder; one of them is damaged, loaded and restored."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "base").mkdir(parents=True)
        self.base = Base(root / "base")
        self.work = root / "work"
        self.work.mkdir()
        shutil.copytree(self.base.team, self.work / "team")
        shutil.copytree(self.base.checkpoint, self.work / "checkpoint")
        shutil.copytree(self.base.checkpoint / "training", self.work / "team" / "training")
        models = shutil.ignore_patterns("model.safetensors")
        shutil.copytree(RELEASE, self.work / "release", ignore=models)
        self.release_plan = _release_plan()
        self.trainer = self.base.trainer(self.base.learner, self.work / "resumed")
        self.trainer.create_optimizer_and_scheduler(2)

    def case(self, target: Target, content: bytes) -> str:
        """Run one case; `accepted`, or the class of the error that refused it."""
        path = self.work / target.file
        path.parent.mkdir(exist_ok=True)
        sound = path.read_bytes() if path.exists() else None
        path.write_bytes(content)
        try:
            target.load(self, path)
        except lm.LatentMASError as error:
            assert str(error)
            return type(error).__name__
        finally:
            path.unlink()
            if sound is not None:
                path.write_bytes(sound)
        return "accepted"


def _release_plan() -> lm.Plan:
    models = {role: lm.Backbone(str(RELEASE / role)) for role in ("planner", "critic", "solver")}
    return lm.templates.sequential(**models, link="recursive", inner="recursive").compile()


# --- loaders ------------------------------------------------------------------------------------


def _graph(fuzz: Fuzz, path: Path) -> object:
    spec = lm.GraphSpec.load(path)
    return compile_graph(spec, facts=dict.fromkeys(spec.backbones, FACTS))


def _prompt(fuzz: Fuzz, path: Path) -> object:
    data = json.loads(fuzz.base.json.read_text())
    data["agents"][0]["prompt"] = PROMPT + path.read_text()
    spec = GraphSpec.parse(data)
    return compile_graph(spec, facts=dict.fromkeys(spec.backbones, FACTS))


def _plan(fuzz: Fuzz, path: Path) -> object:
    return meta_links(lm.Plan.open(path))


def _team(fuzz: Fuzz, _: Path) -> object:
    return lm.System.from_pretrained(fuzz.work / "team", reuse=fuzz.base.system)


def _weights(fuzz: Fuzz, _: Path) -> object:
    return load_link_weights(fuzz.base.system, fuzz.work / "team")


def _inspect(fuzz: Fuzz, _: Path) -> object:
    return str(lm.inspect_team(fuzz.work / "team"))


def _links(fuzz: Fuzz, path: Path) -> object:
    return load_links(fuzz.base.system, path)


def _link_file(fuzz: Fuzz, path: Path) -> object:
    return read_link(path, meta_links(fuzz.release_plan)["inner.planner"])


def _release(fuzz: Fuzz, _: Path) -> object:
    style, root = find_style("sequential_light"), fuzz.work / "release"
    sources = {role: FolderSource(root, role) for role in (*style.roles, "outer")}
    return _link_files(style, fuzz.release_plan, sources, "math")


def _checkpoint(fuzz: Fuzz, path: Path) -> object:
    """What resuming reads, without the training."""
    from transformers import TrainerState

    found = find_checkpoint("", str(path.parent))
    check_checkpoint(path.parent, fuzz.base.learner)
    fuzz.trainer._before = {k: v.clone() for k, v in fuzz.base.learner.state_dict().items()}
    fuzz.trainer.state = TrainerState.load_from_json(str(path.parent / "trainer_state.json"))
    fuzz.trainer._load_optimizer_and_scheduler(found)
    fuzz.trainer._load_rng_state(found)
    return found


def _report(fuzz: Fuzz, path: Path) -> object:
    return lm.training_report(path.parent, fuzz.root / "report.html")


def _run(fuzz: Fuzz, path: Path) -> object:
    told = RunManifest.load(path)
    _check_team(told.team, fuzz.base.system)
    return _samples(told.data, path.parent, None)


def _of(*names: str) -> Callable[[Fuzz], Seeds]:
    """Seeds: files in the scratch folder."""
    return lambda fuzz: Seeds((fuzz.work / name).read_bytes() for name in names)


def _base(*names: str) -> Callable[[Fuzz], Seeds]:
    """Seeds: parts of the base."""
    return lambda fuzz: Seeds(Path(getattr(fuzz.base, name)).read_bytes() for name in names)


def _log_seeds(fuzz: Fuzz) -> Seeds:
    return Seeds([(fuzz.root / "base" / "trained" / "metrics.jsonl").read_bytes()])


def _depth_seeds(_: Fuzz) -> Seeds:
    return Seeds([b'{"rounds": [1, 2, 3], "accuracy": {"R=1": [0.5, 0.25, 0.0]}}'])


def _pack_seeds(fuzz: Fuzz) -> Seeds:
    shared = b"a: &t 'x'\nb:\n  prompt: *t\n  system: |\n    y\n"
    return Seeds([fuzz.base.pack.read_bytes(), shared])


def _json_pack_seeds(_: Fuzz) -> Seeds:
    return Seeds([b'{"planner": "P {{ question }}", "solver": {"system": "S"}}'])


TEAM = "team/"
MANIFEST, WEIGHTS = f"{TEAM}latentmas.json", f"{TEAM}links.safetensors"
PROMPT_FILE, RECORD = f"{TEAM}prompts/planner.jinja", f"{TEAM}training/1-outer/manifest.json"
OUTER, INNER = "release/outer/outerlink_config.json", "release/planner/innerlink_config.json"


def _pack(_: Fuzz, path: Path) -> object:
    return read_prompt_pack(path)


def _rows(_: Fuzz, path: Path) -> object:
    return read_jsonl(path)


def _training_rows(_: Fuzz, path: Path) -> object:
    return read_training_rows(path)


def _own(name: str, damage: Damage, file: str, load: Load) -> Target:
    """A target whose seed is the sound file itself."""
    return Target(name, damage, file, _of(file), load)


TARGETS: tuple[Target, ...] = (
    Target("graph file (YAML)", damaged_yaml, "g.yaml", _base("yaml"), _graph),
    Target("graph file (JSON)", damaged_json, "g.json", _base("json"), _graph),
    Target("prompt", damaged_template, "p.jinja", _of(PROMPT_FILE), _prompt),
    Target("prompt pack (YAML)", damaged_yaml, "p.yaml", _pack_seeds, _pack),
    Target("prompt pack (JSON)", damaged_json, "p.json", _json_pack_seeds, _pack),
    Target("plan", damaged_json, "plan.json", _base("plan"), _plan),
    _own("team: manifest", damaged_json, MANIFEST, _team),
    _own("team: weights", damaged_header, WEIGHTS, _weights),
    _own("team: prompts", damaged_template, PROMPT_FILE, _team),
    _own("team: trainings", damaged_json, RECORD, _team),
    Target("file of links", damaged_header, "some.safetensors", _base("links"), _links),
    _own("inspect: manifest", damaged_json, MANIFEST, _inspect),
    _own("inspect: weights", damaged_header, WEIGHTS, _inspect),
    _own("release: link", damaged_archive, f"release/{ADAPTER}", _link_file),
    _own("release: outer manifest", damaged_json, OUTER, _release),
    _own("release: inner manifest", damaged_json, INNER, _release),
    *(
        _own(
            f"checkpoint: {name}",
            damaged_json if name.endswith("json") else damaged_archive,
            f"checkpoint/{name}",
            _checkpoint,
        )
        for name in STATES
    ),
    Target("run manifest", damaged_json, "run.json", _base("run"), _run),
    Target("report: log", damaged_lines, "log/metrics.jsonl", _log_seeds, _report),
    Target("report: depths", damaged_json, "depths/depths.json", _depth_seeds, _report),
    Target("rows", damaged_lines, "rows.jsonl", _base("rows"), _rows),
    Target("training rows", damaged_lines, "rows.jsonl", _base("rows"), _training_rows),
)
