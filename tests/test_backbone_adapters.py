"""LoRA adapters that backbones declare: exact, over one loaded model, and judged before use."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

import latentmas as lm
from latentmas.errors import GraphError, LatentMASError, WeightsError
from latentmas.runtime import System
from tests.adapters import edit_config, save_lora, write_config
from tests.teams import QUESTIONS, RECURSIVE, load64, tiny

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
BASE = tiny("llama", 32)


@pytest.fixture
def one(tmp_path: Path) -> str:
    return save_lora(BASE, tmp_path / "one", 1)


@pytest.fixture
def two(tmp_path: Path) -> str:
    return save_lora(BASE, tmp_path / "two", 2, r=2, target_modules=["o_proj", "gate_proj"])


def under(adapter: str | None) -> lm.Backbone:
    return lm.Backbone(BASE.source, adapter=adapter)


def team(one: str | None, two: str | None, base: lm.Backbone = BASE) -> lm.Graph:
    """Three agents in a loop on one model: adapter, none, another adapter."""
    options = {"rounds": 2, "latent_steps": 3, "max_new_tokens": 5, **RECURSIVE}
    return lm.templates.sequential(
        planner=lm.Backbone(base.source, adapter=one) if one else base,
        critic=base,
        solver=lm.Backbone(base.source, adapter=two) if two else base,
        **options,
    )


def logits_of(system: System, agent: str, ids: torch.Tensor) -> torch.Tensor:
    backbone = system.backbone_of(agent)
    places = torch.arange(ids.shape[1])[None]
    with torch.no_grad():
        return backbone.logits(backbone.step(backbone.embed(ids), places, torch.ones_like(ids)))


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"use_dora": True},
        {"use_rslora": True},
        {
            "rank_pattern": {"q_proj": 2, "^model.layers.0.mlp.down_proj": 3},
            "alpha_pattern": {"layers.1.self_attn.v_proj": 32},
        },
        {"layers_to_transform": [1]},
        {"target_modules": r".*\.1\..*_proj"},
        {"lora_bias": True, "target_modules": ["q_proj"]},
    ],
    ids=lambda fields: next(iter(fields), "plain"),
)
def test_equals_peft(fields: dict[str, object], tmp_path: Path) -> None:
    base = tiny("qwen2", 32) if "lora_bias" in fields else BASE
    folder = save_lora(base, tmp_path / "own", **fields)
    system = load64(team(folder, None, base))
    ids = torch.arange(5, 25)[None]
    plain = AutoModelForCausalLM.from_pretrained(base.source, dtype=torch.float64).eval()
    with torch.no_grad():
        wanted = plain(input_ids=ids).logits
        assert logits_of(system, "critic", ids).equal(wanted)
        adapted = PeftModel.from_pretrained(plain, folder).double().eval()
        found, expected = logits_of(system, "planner", ids), adapted(input_ids=ids).logits
    assert (expected - wanted).abs().max() > 0.1
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_half_precision_equals_peft(one: str) -> None:
    system = team(one, None).compile().load(dtype="bfloat16")
    ids = torch.arange(5, 25)[None]
    plain = AutoModelForCausalLM.from_pretrained(BASE.source, dtype=torch.bfloat16).eval()
    adapted = PeftModel.from_pretrained(plain, one)
    with torch.no_grad():
        expected = adapted(input_ids=ids).logits
    torch.testing.assert_close(logits_of(system, "planner", ids), expected, rtol=0, atol=0)


def test_one_base_in_memory(one: str, two: str) -> None:
    """All agents together hold the base once and their adapters, also after they have moved."""
    system = team(one, two).compile().load()
    own = {"planner": 4, "solver": 2}
    for _ in ("as loaded", "after a move"):
        models = [backbone.model for backbone in system.agent_backbones.values()]
        weights = {id(p): p.numel() for model in models for p in model.parameters()}
        base = sum(p.numel() for p in system.backbone_of("critic").model.parameters())
        layers = {"planner": [64, 48, 96], "solver": [64, 96]}  # in + out of q, v, down; o, gate
        adapters = sum(2 * own[name] * sum(layers[name]) for name in own)
        assert sum(weights.values()) == base + adapters
        addresses = {p.data_ptr() for model in models for p in model.parameters()}
        assert len(addresses) == len(weights)
        system.double()
    assert system.backbone_of("planner") is not system.backbone_of("critic")
    assert list(system.state_dict()) == [f"links.{n}" for n in system.links.state_dict()]


def test_plan_says_what_is_shared(one: str, two: str) -> None:
    plan = team(one, two).compile()
    keys = list(plan.backbones)
    text = " ".join(plan.summary().split())
    assert f"LoRA adapter of rank 4: {one}; shares weights with {keys[1]}, {keys[2]}" in text
    assert plan.backbones[keys[0]].info.adapter.targets == ("down_proj", "q_proj", "v_proj")
    assert plan.backbones[keys[1]].info.adapter is None
    again = lm.Plan.from_json(plan.to_json())
    assert again == plan
    assert plan != team(two, one).compile()
    assert any("adapter" in line for line in plan.diff(team(two, two).compile()))


def test_estimate_counts_one_base(one: str, two: str) -> None:
    plain, adapted = team(None, None).compile(), team(one, two).compile()
    both = [b.info.adapter.n_parameters for b in adapted.backbones.values() if b.info.adapter]
    assert adapted.explain().weights - plain.explain().weights == 4 * sum(both)
    assert adapted.explain().rows[0].flops > plain.explain().rows[0].flops


@pytest.mark.parametrize("executor", ["cached", "static", "offload"])
def test_executors_agree(executor: str, one: str, two: str) -> None:
    system = load64(team(one, two))
    wanted = system.run(QUESTIONS, executor="reference", record="messages")
    found = system.run(QUESTIONS, executor=executor, record="messages")
    assert found.texts == wanted.texts
    for name, message in wanted.messages.items():
        torch.testing.assert_close(found.messages[name], message, rtol=0, atol=1e-9)
    plain = load64(team(None, None)).run(QUESTIONS, executor="reference", record="messages")
    first = "round1.planner->critic"
    assert not torch.allclose(plain.messages[first], wanted.messages[first], atol=1e-3)


def test_batch_equals_rows(one: str, two: str) -> None:
    system = load64(team(one, two))
    batch = system.run(QUESTIONS)
    assert batch.texts == [system.run([question]).texts[0] for question in QUESTIONS]


def test_threads_do_not_disturb_each_other(one: str, two: str) -> None:
    """Runs side by side, with sessions of all three agents alive on one base."""
    system = load64(team(one, two))
    alone = [system.run([question], executor="static").texts for question in QUESTIONS]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            runs = [pool.submit(system.run, [q], executor="static") for q in QUESTIONS]
            assert [run.result().texts for run in runs] == alone


def test_offload_moves_shared_weights_once(one: str, two: str) -> None:
    from latentmas.engine.executors.offload import Offload

    system = load64(team(one, two))
    models = [backbone.model for backbone in system.agent_backbones.values()]
    weights = {id(t): t for m in models for t in (*m.parameters(), *m.buffers())}
    before = {key: tensor.data_ptr() for key, tensor in weights.items()}
    size = sum(tensor.nbytes for tensor in weights.values())
    executor = Offload(device="cpu", budget=size)
    wanted = system.run(QUESTIONS, executor="cached").texts
    assert system.run(QUESTIONS, executor=executor).texts == wanted
    assert len(executor.moves) == 6  # each of three came and left once: all fit at once
    tight = Offload(device="cpu", budget=size - 8)
    assert system.run(QUESTIONS, executor=tight).texts == wanted
    assert len(tight.moves) > 6
    assert {key: tensor.data_ptr() for key, tensor in weights.items()} == before


def test_saved_team_refers_to_its_adapter(one: str, two: str, tmp_path: Path) -> None:
    system = load64(team(one, two))
    folder = system.save_pretrained(tmp_path / "team")
    assert not list(folder.rglob("adapter*"))
    again = System.from_pretrained(folder, dtype="float64").double()
    assert again.run(QUESTIONS).texts == system.run(QUESTIONS).texts
    edit_config(one, r=8)
    with pytest.raises(LatentMASError, match=r"rank 4 in adapter_model\.safetensors, and rank 8"):
        System.from_pretrained(folder)


def test_graph_file_names_an_adapter_beside_it(one: str, tmp_path: Path) -> None:
    file = team(one, None).save(tmp_path / "team.yaml")
    assert lm.Graph.load(file).spec() == team(one, None).spec()
    file.write_text(file.read_text().replace(one, "./one"))
    assert lm.Graph.load(file).compile() == team(one, None).compile()


def test_reused_backbones(one: str, two: str) -> None:
    """Another team on the same model takes its weights, with or without an adapter."""
    system = load64(team(one, None))
    other = team(two, one).compile().load(reuse=system, dtype="float64")
    assert other.backbone_of("solver") is system.backbone_of("planner")
    assert other.backbone_of("critic") is system.backbone_of("critic")
    mine = other.backbone_of("planner").model.get_input_embeddings().weight
    assert mine is system.backbone_of("critic").model.get_input_embeddings().weight
    assert system.text_twin().backbone_of("planner") is system.backbone_of("planner")


def _without_weights(folder: str) -> None:
    weights = Path(folder) / "adapter_model.safetensors"
    weights.rename(weights.with_name("adapter_model.bin"))


REFUSED: dict[str, tuple[Callable[[str], None], str]] = {
    "pickle": (_without_weights, "is a pickle, which may run code .*safe_serialization=True"),
    "type": (lambda f: write_config(f, {"peft_type": "IA3"}), "of type 'IA3', and only LoRA"),
    "modules": (
        lambda f: edit_config(f, modules_to_save=["lm_head"]),
        r"replaces whole modules \(lm_head.*merge_and_unload",
    ),
    "bias": (lambda f: edit_config(f, bias="all"), "own biases.*merge_and_unload"),
    "start": (
        lambda f: edit_config(f, init_lora_weights="pissa"),
        "belongs to a changed model.*path_initial_model_for_weight_conversion",
    ),
    "pattern": (
        lambda f: edit_config(f, alpha_pattern={"(.*)*q_proj": 4}),
        "regular expression.*not evaluated",
    ),
    "unknown": (
        lambda f: edit_config(f, layer_replication=[[0, 1], [0, 2]]),
        "layer_replication=.*does not support",
    ),
    "targets": (
        lambda f: edit_config(f, target_modules=["q_prj"]),
        "no linear layer of that name; did you mean 'q_proj'",
    ),
    "no type": (lambda f: write_config(f, {"r": 4}), "peft_type: Field required"),
    "list": (lambda f: write_config(f, []), "not that of a LoRA adapter"),
    "json": (lambda f: (Path(f) / "adapter_config.json").write_text("{"), "is not JSON"),
    "config": (lambda f: (Path(f) / "adapter_config.json").unlink(), "has no adapter_config.json"),
    "rank": (lambda f: edit_config(f, r=0), "r: Input should be greater"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused_at_compile(case: str, one: str) -> None:
    spoil, message = REFUSED[case]
    spoil(one)
    with pytest.raises(GraphError) as caught:
        team(one, None).compile()
    (problem,) = caught.value.problems
    assert problem.code == "LM208"
    with pytest.raises(GraphError, match=f"(?s){message}"):
        team(one, None).compile()


def test_adapter_that_does_not_exist() -> None:
    with pytest.raises(GraphError, match=r"LM208 .*\n? *.*'./nowhere' does not exist"):
        team("./nowhere", None).compile()
    with pytest.raises(GraphError, match=r"adapter_revision: is given without an adapter"):
        lm.Backbone("org/model", adapter_revision="main")
    with pytest.raises(GraphError, match="adapter: is empty"):
        lm.Backbone("org/model", adapter=" ")
    with pytest.raises(GraphError, match="holds a secret"):
        lm.Backbone("org/model", adapter="https://x:hf_abcdefghijklmnopqrstuvwxyz0123456789@y")


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    wide = save_lora(tiny("llama", 64), tmp_path / "wide")
    with pytest.raises(WeightsError, match=r"does not fit the model in 12 weights: .*shape"):
        team(wide, None).compile().load()
    bad = save_lora(BASE, tmp_path / "bad")
    from safetensors.torch import load_file, save_file

    path = Path(bad) / "adapter_model.safetensors"
    state = load_file(path)
    next(iter(state.values()))[0, 0] = float("nan")
    save_file(state, path)
    with pytest.raises(WeightsError, match="values that are not finite numbers"):
        team(bad, None).compile().load()
    save_file({name.replace("q_proj", "x"): value for name, value in state.items()}, path)
    with pytest.raises(WeightsError, match=r"self_attn\.x', which is not a linear layer"):
        team(bad, None).compile().load()
    save_file({"base_model.model.lm_head.weight": state.popitem()[1]}, path)
    with pytest.raises(GraphError, match="which is not a LoRA weight"):
        team(bad, None).compile()


def test_base_weights_stay_as_they_were(one: str) -> None:
    system = team(one, None).compile().load()
    plain = AutoModelForCausalLM.from_pretrained(BASE.source)
    for mine, theirs in zip(
        system.backbone_of("critic").model.parameters(), plain.parameters(), strict=True
    ):
        assert mine.equal(theirs)
        assert not mine.requires_grad


def test_another_base_is_warned_of(one: str, caplog: pytest.LogCaptureFixture) -> None:
    edit_config(one, base_model_name_or_path="org/Another-7B")
    with caplog.at_level(logging.WARNING, "latentmas"):
        team(one, None).compile()
    assert "was trained on 'org/Another-7B'" in caplog.text


def test_without_peft(one: str, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = team(one, None).compile()
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(WeightsError, match=r"pip install 'latentmas\[peft\]'"):
        plan.load()
    team(None, None).compile().load()
