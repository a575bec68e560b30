"""The text twin and `reuse=`: no second copy of a model, and nothing moves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import latentmas as lm
from latentmas.runtime.loading import placement
from latentmas.training.speech import text_twin
from tests.teams import QUESTIONS, sequential, tiny


def storages(*systems: lm.System) -> int:
    """Bytes of the backbones' weights, each storage counted once."""
    found = {
        tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
        for system in systems
        for backbone in system.agent_backbones.values()
        for tensor in [*backbone.model.parameters(), *backbone.model.buffers()]
    }
    return sum(found.values())


def test_a_twin_shares_every_weight() -> None:
    system = sequential().compile().load(executor="static")
    alone = storages(system)
    twin = system.text_twin(max_new_tokens=3)
    assert storages(system, twin) == alone
    assert all(twin.backbone_of(n) is system.backbone_of(n) for n in system.agent_backbones)
    assert (twin.executor, twin.link_ids()) == ("static", [])
    apart = sequential().as_text(max_new_tokens=3).compile().load()
    assert storages(system, apart) == 2 * alone, "the count sees a second copy"
    assert twin.run(QUESTIONS).token_ids == apart.run(QUESTIONS).token_ids


def test_a_twin_keeps_the_dtype_that_the_team_was_loaded_in() -> None:
    system = sequential().compile().load(dtype="bfloat16")
    twin = system.text_twin()
    assert twin.backbone_of("critic") is system.backbone_of("critic")
    assert twin.backbone_of("critic").dtype == torch.bfloat16
    system.double()
    assert twin.backbone_of("critic").dtype == system.text_twin().backbone_of("critic").dtype
    assert text_twin(system).backbone_of("solver") is system.backbone_of("solver")


@pytest.mark.parametrize("limit", [0, {"solver": 3}, "4"])
def test_the_limit_of_a_twin_is_checked(limit: Any) -> None:
    with pytest.raises(lm.LatentMASError, match=r"max_new_tokens is .*whole number"):
        sequential().compile().load().text_twin(max_new_tokens=limit)


def test_a_twin_keeps_functions_and_tools() -> None:
    def shout(text: str) -> str:
        """Say it louder."""
        return text.upper()

    backbone = tiny("qwen3", 16)
    graph = lm.Graph("helped", inputs=["question"], rounds=1, latent_steps=2)
    graph.add_text_source("hint", lambda sample: f"of {sample['question']}")
    graph.add_agent("one", backbone, prompt="{{ hint }} {{ question }}")
    graph.add_agent("two", backbone, prompt="{{ one }}", tools=[shout], max_new_tokens=4)
    graph.connect("hint", "one")
    graph.connect("one", "two")
    system = graph.output("two").compile().load()
    twin = system.text_twin(max_new_tokens=2)
    assert twin.text_functions == system.text_functions and twin.text_functions
    assert twin.tools == system.tools and twin.tools
    assert len(twin.run(QUESTIONS).texts) == len(QUESTIONS)
    assert text_twin(system).text_functions == system.text_functions


def test_reuse_of_some_backbones_loads_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    system = sequential().compile().load()
    known, new = tiny("llama", 16), tiny("qwen3", 32, seed=4)
    loaded: list[str] = []
    plain = placement.load_backbone

    def load(planned: Any, **options: Any) -> Any:
        loaded.append(planned.spec.source)
        return plain(planned, **options)

    monkeypatch.setattr(placement, "load_backbone", load)
    graph = lm.templates.distillation(expert=new, learner=known, latent_steps=3)
    other = graph.compile().load(reuse=system)
    assert loaded == [new.source]
    assert other.backbone_of("learner") is system.backbone_of("planner")


def test_an_explicit_dtype_makes_a_copy() -> None:
    system = sequential().compile().load()
    same = system.plan.load(reuse=system, dtype="float32")
    other = system.plan.load(reuse=system, dtype="bfloat16")
    assert same.backbone_of("planner") is system.backbone_of("planner")
    assert other.backbone_of("planner") is not system.backbone_of("planner")
    assert other.backbone_of("planner") is other.backbone_of("solver")
    assert other.backbone_of("planner").dtype == torch.bfloat16
    assert system.backbone_of("planner").dtype == torch.float32


# --- devices, by data: there is no second one to move to ------------------------------------------


class Loads:
    """Stands for loading: remembers what was asked for, and where."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[tuple[str, str, str | None]] = []
        full = {"cuda": "cuda:0"}
        monkeypatch.setattr(placement, "find_device", lambda name: full.get(name, name))
        monkeypatch.setattr(placement, "load_backbone", self)

    def __call__(
        self, planned: Any, *, device: str, dtype: str | None, commit: Any, split: Any
    ) -> Any:
        self.asked.append((planned.agents[0], device, dtype))
        return SimpleNamespace(
            planned=planned,
            device=torch.device(device),
            dtype=getattr(torch, dtype or "bfloat16"),
            commit=commit,
            split=split,
            base=None,
            learned=False,
        )

    def load(self, plan: lm.Plan, device: Any = None, **options: Any) -> Any:
        old = options.get("reuse")
        return placement.load_backbones(plan, placement.place_agents(plan, device, old), **options)


def devices(agent_backbones: dict[str, Any]) -> dict[str, str]:
    return {name: str(backbone.device) for name, backbone in agent_backbones.items()}


def test_devices_are_kept_unless_others_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, loads = sequential().compile(), Loads(monkeypatch)
    assert set(devices(loads.load(plan)).values()) == {"cpu"}
    spread = {"planner": "cuda:0", "critic": "cuda:1", "solver": "cuda:2"}
    old = loads.load(plan, spread)
    assert devices(old) == spread
    loads.asked.clear()

    twin = sequential().as_text().compile()
    kept = loads.load(twin, reuse=old)
    assert devices(kept) == spread and not loads.asked
    assert all(kept[name] is old[name] for name in spread)
    assert loads.load(twin, spread, reuse=old) == old and not loads.asked
    assert devices(loads.load(twin, {"planner": "cuda:2"}, reuse=old)) == spread | {
        "planner": "cuda:2"
    }
    assert not loads.asked, "the solver's copy is there already"
    moved = loads.load(twin, "cpu", reuse=old)
    assert devices(moved) == dict.fromkeys(spread, "cpu")
    assert len(loads.asked) == 2, "planner and solver share one"


def test_cuda_is_the_device_that_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, loads = sequential().compile(), Loads(monkeypatch)
    old = loads.load(plan, "cuda")
    loads.asked.clear()
    assert loads.load(plan, "cuda", reuse=old) == old and not loads.asked


def test_another_dtype_is_loaded_where_the_old_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    plan, loads = sequential().compile(), Loads(monkeypatch)
    old = loads.load(plan, "cuda:1")
    loads.asked.clear()
    loads.load(plan, reuse=old, dtype="float32")
    assert {(device, dtype) for _, device, dtype in loads.asked} == {("cuda:1", "float32")}
    assert len(loads.asked) == 2


def test_a_device_for_an_unknown_agent_is_refused_with_reuse_too() -> None:
    system = sequential().compile().load()
    with pytest.raises(lm.LatentMASError, match="did you mean 'critic'"):
        system.plan.load({"crític": "cpu"}, reuse=system)


# --- memory of the process ------------------------------------------------------------------------

PROGRAM = """
import resource, sys
import latentmas as lm
from latentmas.testing import tiny_backbone
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize()
a = tiny_backbone("llama", 640, layers=4)
b = tiny_backbone("qwen3", 512, layers=4)
graph = lm.templates.sequential(planner=a, critic=b, solver=a, latent_steps=2, max_new_tokens=2)
system = graph.compile().load()
system.run(["What is 3 + 4?"])
weights = sum(p.nbytes for s in {id(b): b for b in system.agent_backbones.values()}.values()
              for p in s.model.parameters())
before = resident()
twin = system.text_twin(max_new_tokens=2)
twin.run(["What is 3 + 4?"])
print(weights, resident() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_a_twin_adds_no_resident_memory_of_a_model() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True, timeout=600
    )
    weights, more = map(int, done.stdout.split())
    assert weights > 40 * 2**20
    assert more < weights / 4
