"""LoRA adapters that agents learn in the outer loop: exact gradients, saving, resuming."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

import latentmas as lm
from latentmas.errors import GraphError, LatentMASError, UnknownNameError, WeightsError
from latentmas.runtime import System
from latentmas.training.losses.outer import OuterLoss
from latentmas.training.memory.constant import constant_rollouts
from tests.adapters import save_lora
from tests.teams import RECURSIVE, load64, tiny
from tests.test_cli import call

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
BASE = tiny("llama", 32)
HEAD = "A head that every prompt of the team begins with. "
ROWS = [
    {"question": "3 + 4?", "answer": "7"},
    {"question": "a longer question", "answer": "no"},
    {"question": "a third one", "answer": "maybe"},
]
SMALL = {"r": 2, "alpha": 8.0, "target_modules": ["q_proj", "v_proj", "up_proj"]}


def pair(adapter: str | None = None, *, rounds: int = 2, kind: str = "recursive") -> lm.Graph:
    """Two agents on one base; the planner may have an adapter of its backbone."""
    graph = lm.Graph("pair", inputs=["question"], rounds=rounds, latent_steps=3)
    prompt = HEAD + "{% if feedback %}{{ feedback }}{% endif %}Question: {{ question }}"
    options = {"link": kind, "inner": kind} if kind != "recursive" else RECURSIVE
    inner = options["inner"]
    planner = lm.Backbone(BASE.source, adapter=adapter)
    graph.add_agent("planner", planner, prompt=prompt, inner=inner)
    solver = HEAD + "{{ planner }} Question: {{ question }}"
    graph.add_agent("solver", BASE, prompt=solver, inner=inner, max_new_tokens=4)
    graph.connect("planner", "solver", link=options["link"])
    graph.feedback("solver", "planner.feedback", link=options["link"])
    graph.output("solver")
    return graph


def alone() -> lm.Graph:
    graph = lm.Graph("alone", inputs=["question"], rounds=1, latent_steps=1)
    graph.add_agent("solver", BASE, prompt=HEAD + "{{ question }}", max_new_tokens=4)
    graph.output("solver")
    return graph


def config(folder: Path, **options: Any) -> lm.OuterConfig:
    base: dict[str, Any] = {"max_steps": 3, "use_cpu": True, "per_device_train_batch_size": 2}
    base |= {"probe_stability": False, "progress": False, "logging_steps": 1, "warmup_steps": 0}
    return lm.OuterConfig(str(folder), **(base | options))


def train(system: System, folder: Path, **options: Any) -> lm.OuterTrainer:
    trainer = lm.OuterTrainer(system, config(folder, **options), train_dataset=ROWS)
    trainer.train()
    return trainer


@torch.no_grad()
def disturb(system: System) -> None:
    """Weights away from their start, where one factor is zero."""
    generator = torch.Generator().manual_seed(5)
    for weight in system.adapters.parameters():
        noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        weight.add_((noise * 0.1).to(weight.dtype))


@pytest.fixture
def exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms in fp64, so that finite differences see the loss itself and not fp32 rounding."""
    from transformers.models.llama.modeling_llama import LlamaRMSNorm, LlamaRotaryEmbedding

    def norm(self: Any, x: torch.Tensor) -> torch.Tensor:
        scale = torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * x * scale

    def rotary(self: Any, x: torch.Tensor, position_ids: torch.Tensor) -> Any:
        angles = position_ids[..., None].double() * self.inv_freq.double()
        both = torch.cat([angles, angles], dim=-1)
        return both.cos().to(x.dtype), both.sin().to(x.dtype)

    monkeypatch.setattr(LlamaRMSNorm, "forward", norm)
    monkeypatch.setattr(LlamaRotaryEmbedding, "forward", rotary)


def gradients(system: System, **options: Any) -> tuple[OuterLoss, dict[str, torch.Tensor]]:
    loss = OuterLoss(system, system.plan, **options)
    system.zero_grad()
    loss(ROWS[:2])["loss"].backward()
    found = {n: p.grad.clone() for n, p in system.named_parameters() if p.grad is not None}
    return loss, found


VARIANTS: dict[str, dict[str, Any]] = {
    "cached": {},
    "reference": {"executor": "reference"},
    "checkpoint": {"checkpoint": True},
    "every round": {"round_weights": [0.5, 1.0, 0.25]},
}


@pytest.mark.usefixtures("exact_norms")
@pytest.mark.parametrize(
    ("rounds", "declared"), [(3, False), (2, True)], ids=["on the base", "on an adapter"]
)
def test_gradients_equal_finite_differences(rounds: int, declared: bool, tmp_path: Path) -> None:
    """Two agents on one base, several rounds: random directions of every weight, in fp64."""
    graph = pair(save_lora(BASE, tmp_path / "own") if declared else None, rounds=rounds)
    system = load64(graph)
    for seed, agent in enumerate(("planner", "solver")):
        system.add_adapter(agent, SMALL, seed=seed)
    system.double()
    disturb(system)
    system.requires_grad_(True)
    loss, found = gradients(system)
    names = [name for name, _ in system.named_parameters()]
    assert sum("lora/planner" in name for name in names) == 2 * 2 * 3
    for options in VARIANTS.values():
        if "round_weights" not in options:
            _, other = gradients(system, **options)
            assert other.keys() == found.keys()
            for name, grad in other.items():
                assert torch.allclose(grad, found[name], rtol=1e-8, atol=1e-12), (options, name)
    generator = torch.Generator().manual_seed(0)
    for name, weight in system.named_parameters():
        if "adapters" not in name:
            continue
        direction = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        values = []
        with torch.no_grad():
            for sign in (1, -1):
                weight.add_(direction, alpha=sign * 1e-4)
                values.append(float(loss(ROWS[:2])["loss"]))
                weight.add_(direction, alpha=-sign * 1e-4)
        measured, expected = (values[0] - values[1]) / 2e-4, float((found[name] * direction).sum())
        assert measured == pytest.approx(expected, rel=1e-4, abs=1e-8), name


@pytest.mark.usefixtures("exact_norms")
def test_gradients_with_scores_of_every_round() -> None:
    system = load64(pair(rounds=3))
    system.add_adapter("solver", SMALL)
    system.double()
    disturb(system)
    system.requires_grad_(True)
    loss, found = gradients(system, **VARIANTS["every round"])
    name, weight = next(iter(system.adapters.named_parameters()))
    direction = torch.ones_like(weight) / weight.numel() ** 0.5
    values = []
    with torch.no_grad():
        for sign in (1, -1):
            weight.add_(direction, alpha=sign * 1e-4)
            values.append(float(loss(ROWS[:2])["loss"]))
            weight.add_(direction, alpha=-sign * 1e-4)
    expected = float((found[f"adapters.{name}"] * direction).sum())
    assert (values[0] - values[1]) / 2e-4 == pytest.approx(expected, rel=1e-4)


def test_nothing_is_taken_for_constant() -> None:
    """States of an agent that learns are computed at each step; those of others are kept."""
    system = pair(kind="soft_token").compile().load()
    system.requires_grad_(False)
    outer = system.link("outer.solver->planner.feedback")
    outer.requires_grad_(True)
    first = "round1.planner"
    assert first in constant_rollouts(system, system.plan)
    system.add_adapter("planner", SMALL).requires_grad_(True)
    assert constant_rollouts(system, system.plan) == set()
    system.adapters.requires_grad_(False)
    assert first in constant_rollouts(system, system.plan)


@pytest.mark.parametrize("links", [False, "all"])
def test_training_equals_one_without_kept_states(links: Any, tmp_path: Path) -> None:
    """Kept beginnings and kept rollouts change no step, though an adapter on their base learns."""
    ends = []
    for keep in (4.0, 0.0):
        system = load64(pair(kind="recursive"))
        options = {"train_adapters": {"solver": SMALL}, "train_links": links, "feature_gib": keep}
        trainer = lm.OuterTrainer(
            system,
            config(tmp_path / str(keep), max_steps=4, adapter_learning_rate=0.02, **options),
            train_dataset=ROWS,
        )
        system.double()
        trainer.train()
        kept = trainer.model.constant
        assert (len(kept) > 0) == (keep > 0 and links is False)
        ends.append({n: w.clone() for n, w in system.state_dict().items()})
    for name, weight in ends[0].items():
        torch.testing.assert_close(weight, ends[1][name], rtol=1e-7, atol=1e-9)


def test_a_new_adapter_changes_nothing() -> None:
    system = load64(pair())
    before = system.run([row["question"] for row in ROWS], record="messages")
    adapter = system.add_adapter("planner", {"r": 4})
    layers = 7 * 2  # q, k, v, o, gate, up, down in two layers
    assert len(adapter.weights()) == 2 * layers
    assert not any("lm_head" in name or "embed" in name for name in adapter.weights())
    after = system.run([row["question"] for row in ROWS], record="messages")
    assert after.texts == before.texts
    for name, message in before.messages.items():
        assert torch.equal(after.messages[name], message)
    assert system.add_adapter("planner", {"r": 4}) is adapter
    with pytest.raises(LatentMASError, match=r"has an adapter already .*r=4"):
        system.add_adapter("planner", {"r": 8})


def test_parameters_of_a_system() -> None:
    """Adapters are parameters beside links; base weights never are, and are held once."""
    system = pair().compile().load()
    links = sum(p.numel() for p in system.parameters())
    adapter = system.add_adapter("solver", SMALL)
    sizes = {"q_proj": 32 + 32, "v_proj": 32 + 16, "up_proj": 32 + 64}
    assert adapter.n_parameters == 2 * 2 * sum(sizes.values())
    assert sum(p.numel() for p in system.parameters()) == links + adapter.n_parameters
    assert all(name.startswith(("links.", "adapters.lora/solver.")) for name in system.state_dict())
    bases = [
        system.backbone_of(name).model.get_input_embeddings() for name in system.agent_backbones
    ]
    assert bases[0].weight is bases[1].weight
    state = {name: torch.full_like(w, 0.5) for name, w in system.state_dict().items()}
    system.load_state_dict(state)
    layer = system.backbone_of("solver").model.model.layers[0].self_attn.q_proj
    assert float(layer.lora_B["learned"].weight[0, 0]) == 0.5
    assert "with its own LoRA" in repr(system)


@pytest.mark.parametrize("executor", ["cached", "static", "offload"])
def test_executors_agree_on_learned_adapters(executor: str, tmp_path: Path) -> None:
    system = load64(pair(save_lora(BASE, tmp_path / "own")))
    for agent in ("planner", "solver"):
        system.add_adapter(agent, SMALL)
    system.double()
    questions = [row["question"] for row in ROWS]
    system.run(questions, executor=executor)  # buffers are kept from before the weights change
    disturb(system)
    wanted = system.run(questions, executor="reference", record="messages")
    found = system.run(questions, executor=executor, record="messages")
    assert found.texts == wanted.texts
    for name, message in wanted.messages.items():
        torch.testing.assert_close(found.messages[name], message, rtol=0, atol=1e-9)
    assert found.texts == [system.run([q], executor=executor).texts[0] for q in questions]


def test_only_chosen_weights_learn(tmp_path: Path) -> None:
    system = pair().compile().load()
    before = {name: w.clone() for name, w in system.link_state().items()}
    base = {n: w.clone() for n, w in system.backbone_of("planner").model.state_dict().items()}
    train(system, tmp_path, train_links=False, train_adapters=["solver"])
    assert system.adapter_of("planner") is None
    moved = system.adapter_state()
    assert all(float(w.abs().max()) > 0 for name, w in moved.items() if "lora_B" in name)
    for name, weight in system.link_state().items():
        assert torch.equal(weight, before[name])
    for name, weight in system.backbone_of("planner").model.state_dict().items():
        assert torch.equal(weight, base[name])
    record = system.history[-1].manifest
    assert record["links"] == []
    assert list(record["adapters"]) == ["solver"]


def test_learning_rates_of_links_and_adapters(tmp_path: Path) -> None:
    system = pair().compile().load()
    rates = {"learning_rate": 1e-3, "adapter_learning_rate": 5e-2}
    trainer = train(system, tmp_path, train_links="all", train_adapters=SMALL, **rates)
    own = {id(p) for p in system.adapters.parameters()}
    seen = set()
    for group in trainer.optimizer.param_groups:
        for weight in group["params"]:
            assert group["initial_lr"] == (5e-2 if id(weight) in own else 1e-3)
            seen.add(id(weight))
    assert seen == {id(p) for p in system.parameters() if p.requires_grad}
    entries = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert any("grad_norm/adapter.planner" in entry for entry in entries)


def test_single_agent_without_links(tmp_path: Path) -> None:
    """The LoRA baseline of the paper: one agent, no links, only its adapter learns."""
    system = alone().compile().load()
    trainer = train(
        system, tmp_path, max_steps=30, train_adapters={"r": 4}, adapter_learning_rate=0.02
    )
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.6 * losses[0]
    again = System.from_pretrained(system.save_pretrained(tmp_path / "team"))
    assert again.run(ROWS).texts == system.run(ROWS).texts
    assert again.run(ROWS).texts != alone().compile().load().run(ROWS).texts


def test_saved_and_loaded(tmp_path: Path) -> None:
    system = load64(pair(save_lora(BASE, tmp_path / "own")))
    lora = lm.LoRA(r=2, rslora=True)
    system.add_adapter("planner", lora)
    system.double()
    disturb(system)
    folder = system.save_pretrained(tmp_path / "team")
    assert (folder / "adapters.safetensors").is_file()
    assert not list(folder.rglob("adapter_*"))
    again = System.from_pretrained(folder, dtype="float64")
    assert again.adapter_of("planner").lora == lora
    for name, weight in system.adapter_state().items():
        assert torch.equal(again.double().adapter_state()[name], weight), name
    assert again.run(ROWS).texts == system.run(ROWS).texts
    plain = load64(pair()).save_pretrained(folder)
    assert not (plain / "adapters.safetensors").exists()
    assert "adapter" not in json.loads((plain / "latentmas.json").read_text())


def test_load_into_a_team_that_has_none(tmp_path: Path) -> None:
    from latentmas.io import load_link_weights

    system = pair().compile().load()
    system.add_adapter("planner", SMALL)
    disturb(system)
    folder = system.save_pretrained(tmp_path / "team")
    other = pair().compile().load(seed=9)
    load_link_weights(other, folder)
    assert other.run(ROWS).texts == system.run(ROWS).texts
    different = pair().compile().load()
    different.add_adapter("planner", {"r": 3})
    with pytest.raises(WeightsError, match=r"(?s)LM503 .*the saved one has r=2"):
        load_link_weights(different, folder)
    more = pair().compile().load()
    more.add_adapter("solver", SMALL)
    with pytest.raises(WeightsError, match="adapter of solver: missing in the saved team"):
        load_link_weights(more, folder)


def damage(folder: Path) -> Iterator[tuple[str, str]]:
    """Ways to spoil the adapters of a saved team, each with the message."""
    path, manifest = folder / "adapters.safetensors", folder / "latentmas.json"
    state, told = load_file(path), json.loads(manifest.read_text())
    whole, text = path.read_bytes(), manifest.read_text()
    told.pop("adapter_weights")
    path.write_bytes(whole + b" ")
    yield "cut", "LM503"
    path.unlink()
    yield "missing", "lacks adapters.safetensors"
    first = next(iter(state))
    save_file(state | {first: state[first] * float("nan")}, path)
    yield "digest", "SHA-256 differs"
    manifest.write_text(json.dumps(told))
    yield "nan", "not finite numbers"
    save_file(state | {"x.y": torch.zeros(1)}, path)
    yield "stray", "belongs to no adapter"
    save_file({n: w for n, w in state.items() if n != first}, path)
    yield "one less", "missing: planner.model.layers.0"
    path.write_bytes(whole)
    for name, adapters in {
        "agent": {"nobody": told["adapters"]["planner"]},
        "rank": {"planner": told["adapters"]["planner"] | {"r": 60000}},
        "modules": {"planner": told["adapters"]["planner"] | {"target_modules": None}},
        "field": {"planner": {"x": 1}},
    }.items():
        manifest.write_text(json.dumps(told | {"adapters": adapters}))
        yield name, "LM50[23]"
    manifest.write_text(text)


def test_damaged_adapters_are_refused(tmp_path: Path) -> None:
    system = pair().compile().load()
    system.add_adapter("planner", SMALL)
    disturb(system)
    folder = system.save_pretrained(tmp_path / "team")
    for what, message in damage(folder):
        with pytest.raises(WeightsError, match=message):
            System.from_pretrained(folder)
            pytest.fail(what)
    assert System.from_pretrained(folder).run(ROWS).texts == system.run(ROWS).texts


def test_resumed_bit_by_bit(tmp_path: Path) -> None:
    options = {"max_steps": 6, "save_steps": 3, "train_adapters": {"solver": SMALL, "planner": {}}}
    options |= {"adapter_learning_rate": 0.02, "train_links": "all"}
    whole = pair().compile().load()
    train(whole, tmp_path / "whole", **options)
    part = pair().compile().load(seed=3)
    trainer = lm.OuterTrainer(part, config(tmp_path / "part", **options), train_dataset=ROWS)
    trainer.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3"))
    assert part.state_dict().keys() == whole.state_dict().keys()
    for name, weight in whole.state_dict().items():
        assert torch.equal(part.state_dict()[name], weight), name
    opened = System.from_pretrained(tmp_path / "whole" / "checkpoint-6")
    assert opened.run(ROWS).texts == whole.run(ROWS).texts
    fewer = pair().compile().load()
    with pytest.raises(WeightsError):
        train(fewer, tmp_path / "x", train_adapters=["solver"]).train(
            resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-3")
        )


def test_the_verb_trains_adapters(tmp_path: Path) -> None:
    """One agent without links: only the outer loop is of use, and only for adapters."""
    system = alone().compile().load()
    with pytest.raises(LatentMASError, match="LM402"):
        lm.train(system, ROWS, output_dir=tmp_path / "none", progress=False)
    options = {"max_steps": 2, "progress": False, "train_adapters": {"solver": lm.LoRA(r=2)}}
    done = lm.train(system, ROWS, output_dir=tmp_path / "out", **options)
    assert [stage.loop for stage in done.stages] == ["outer"]
    assert System.from_pretrained(done.team).adapter_of("solver").lora.r == 2
    fresh = alone().compile().load()
    lm.train(fresh, ROWS, output_dir=tmp_path / "out", resume=True, progress=False)
    assert fresh.adapter_of("solver").n_parameters == system.adapter_of("solver").n_parameters
    from latentmas.training import plan_training

    plan = plan_training(pair().compile(), ROWS, train_links=False, train_adapters=True)
    assert [stage.loop for stage in plan.running] == ["outer"]
    assert "train_links=False leaves the links as they are" in str(plan)


def test_exported_to_peft(tmp_path: Path) -> None:
    system = load64(pair())
    system.add_adapter("solver", {"r": 2, "rslora": True})
    system.double()
    disturb(system)
    folder = system.save_adapter("solver", tmp_path / "adapter")
    ids = torch.arange(5, 25)[None]
    plain = AutoModelForCausalLM.from_pretrained(BASE.source, dtype=torch.float64)
    adapted = PeftModel.from_pretrained(plain, str(folder)).double().eval()
    backbone = system.backbone_of("solver")
    with torch.no_grad():
        expected = adapted(input_ids=ids).logits
        states = backbone.step(backbone.embed(ids), torch.arange(20)[None], torch.ones_like(ids))
    torch.testing.assert_close(backbone.logits(states), expected, rtol=0, atol=1e-10)
    graph = (
        alone()
        .compile()
        .graph.replace(
            backbones={"own": lm.Backbone(BASE.source, adapter=str(folder))},
            agents=[alone().compile().graph.agents[0].model_copy(update={"backbone": "own"})],
        )
    )
    declared = lm.Graph.from_spec(graph).compile().load(dtype="float64").double()
    places = torch.arange(20)[None]
    with torch.no_grad():
        found = declared.backbone_of("solver").step(
            backbone.embed(ids), places, torch.ones_like(ids)
        )
    torch.testing.assert_close(found, states, rtol=0, atol=1e-10)
    with pytest.raises(LatentMASError, match="agent 'planner' has no adapter of its own"):
        system.save_adapter("planner", tmp_path / "other")
    with pytest.raises(LatentMASError, match="holds a team or a model"):
        system.save_adapter("solver", system.save_pretrained(tmp_path / "team"))


def test_twins_and_other_teams(tmp_path: Path) -> None:
    """The text twin speaks with what its agents have learned; another team does not."""
    system = pair().compile().load()
    system.add_adapter("solver", SMALL)
    disturb(system)
    twin = system.text_twin(max_new_tokens=4)
    assert twin.backbone_of("solver") is system.backbone_of("solver")
    assert twin.adapter_of("solver") is system.adapter_of("solver")
    other = pair().compile().load(reuse=system)
    assert other.adapter_of("solver") is None
    assert other.backbone_of("solver") is system.backbone_of("planner")


CHOICES: dict[str, tuple[Any, dict[str, int]]] = {
    "all": (True, {"planner": 8, "solver": 8}),
    "none": (False, {}),
    "one": ("solver", {"solver": 8}),
    "list": (["planner"], {"planner": 8}),
    "fields": ({"r": 3}, {"planner": 3, "solver": 3}),
    "each": ({"planner": {"r": 3}, "solver": True}, {"planner": 3, "solver": 8}),
    "not this": ({"planner": {"r": 3}, "solver": False}, {"planner": 3}),
    "record": (lm.LoRA(r=5), {"planner": 5, "solver": 5}),
}


@pytest.mark.parametrize("case", CHOICES)
def test_what_train_adapters_takes(case: str, tmp_path: Path) -> None:
    wanted, ranks = CHOICES[case]
    system = pair().compile().load()
    lm.OuterTrainer(system, config(tmp_path, train_adapters=wanted), train_dataset=ROWS)
    assert {agent: one.lora.r for agent, one in system.agent_adapters().items()} == ranks


@pytest.mark.parametrize(
    ("wanted", "error", "message"),
    [
        (["plannr"], UnknownNameError, "did you mean 'planner'"),
        ({"planner": {"rank": 3}}, LatentMASError, "its fields are r, alpha, target_modules"),
        ({"r": 0}, LatentMASError, "greater than or equal to 1"),
        ({"target_modules": []}, LatentMASError, "is empty"),
        ({"target_modules": ["qproj"]}, WeightsError, "choose among q_proj, k_proj"),
    ],
)
def test_mistakes(wanted: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    system = pair().compile().load()
    with pytest.raises(error, match=message):
        lm.OuterTrainer(system, config(tmp_path, train_adapters=wanted), train_dataset=ROWS)


def test_out_of_reach(tmp_path: Path) -> None:
    """A text edge lets no gradient through to the agent before it."""
    graph = pair().as_text(max_new_tokens=3)
    system = graph.compile().load()
    with pytest.raises(GraphError, match=r"LM401 .*adapter of planner"):
        lm.OuterTrainer(system, config(tmp_path, train_adapters=True), train_dataset=ROWS)
    train(system, tmp_path, train_adapters=["solver"], max_steps=1)
    with pytest.raises(LatentMASError, match="LM402"):
        lm.OuterTrainer(system, config(tmp_path, train_links=False), train_dataset=ROWS)


def test_command_line(tmp_path: Path) -> None:
    team, rows = pair().save(tmp_path / "team.yaml"), tmp_path / "rows.jsonl"
    rows.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS))
    common = ("train", "outer", team, "--data", rows, "--steps", 1, "--batch-size", 2)
    out = tmp_path / "out"
    options = ("--train-adapters", "planner", "--links", "none", "--set", "probe_stability=false")
    told = json.loads(call(*common, "--output-dir", out, *options, "--json").stdout)
    assert (told["links"], told["adapters"]) == ([], ["planner"])
    shown = call("inspect", out / "team").stdout
    assert "adapters: " in shown and "rank 8" in shown and shown.rstrip().endswith("sound")
    other = json.loads(call("inspect", out / "team", "--json").stdout)
    assert [(one["agent"], one["r"]) for one in other["adapters"]] == [("planner", 8)]
    path = out / "team" / "adapters.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\0\0\xc0\x7f")  # the last weight is not a number
    assert (
        "adapter of planner: holds values that are not finite"
        in call("inspect", out / "team", code=1).stdout
    )


def test_difference_of_two_teams(tmp_path: Path) -> None:
    one, two = pair().compile().load(), pair().compile().load()
    one.add_adapter("planner", SMALL)
    a, b = one.save_pretrained(tmp_path / "a"), two.save_pretrained(tmp_path / "b")
    states = {link.id: link.state for link in lm.diff_teams(a, b).links}
    assert states.pop("adapter.planner") == "only in A"
    assert set(states.values()) == {"same"}
    two.add_adapter("planner", SMALL)
    assert lm.diff_teams(a, two.save_pretrained(b)).equal
    disturb(two)
    changed = lm.diff_teams(a, two.save_pretrained(b)).links[-1]
    assert (changed.id, changed.state) == ("adapter.planner", "changed")


def test_estimates_count_what_learns(tmp_path: Path) -> None:
    system = pair().compile().load()
    frozen = lm.OuterTrainer(system, config(tmp_path), train_dataset=ROWS).estimate
    both = config(tmp_path, train_adapters={"planner": SMALL})
    found = lm.OuterTrainer(system, both, train_dataset=ROWS).estimate
    assert found.backbones == frozen.backbones
    assert found.links - frozen.links == 16 * system.adapter_of("planner").n_parameters
    assert found.activations > frozen.activations
    assert "planner: its own adapter" in " ".join(system.explain(ROWS).notes)
