"""How a declared backbone is read: quantization, tokenizer, chat template, subfolder, arguments."""

from __future__ import annotations

import importlib.util
import json
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch
import yaml
from transformers import AutoModelForCausalLM

import latentmas as lm
from latentmas.backbones import load_backbone
from tests.teams import tiny

QUESTIONS = ["What is 3 + 4?", "x"]
INT8 = "torchao:int8_weight_only"
PLAIN = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}\n{% endfor %}"


def team(*backbones: lm.Backbone) -> lm.Graph:
    first, last = backbones[0], backbones[-1]
    graph = lm.Graph("pair", inputs=["question"], rounds=2, latent_steps=2)
    graph.add_agent("one", first, prompt="{% if back %}{{ back }}{% endif %}{{ question }}")
    graph.add_agent("two", last, prompt="{{ one }} {{ question }}", max_new_tokens=4)
    graph.connect("one", "two", link="recursive")
    graph.feedback("two", "one.back", link="recursive")
    return graph.output("two")


def declared(**fields: Any) -> lm.Backbone:
    return lm.Backbone(tiny("llama", 32).source, **fields)


def run(graph: lm.Graph, **options: Any) -> Any:
    return graph.compile().load(**options).run(QUESTIONS, record=("messages",))


def refused(graph: lm.Graph, code: str, *words: str) -> None:
    with pytest.raises(lm.GraphError) as caught:
        graph.compile()
    shown = "\n".join(str(problem) for problem in caught.value.problems if problem.code == code)
    assert shown, caught.value
    for word in words:
        assert word in shown


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny("llama", 32).source, tmp_path / "model"))


# --- equality, digests, files -----------------------------------------------------------------


def test_fields_that_are_not_set_do_not_change_what_is_written() -> None:
    old = {"source", "revision", "dtype", "family", "trust_remote_code", "attention"}
    assert set(lm.Backbone("owner/model").model_dump()) == old
    assert set(declared(tokenizer="owner/other").model_dump()) == old | {"tokenizer"}


@pytest.mark.parametrize(
    "fields",
    [
        {"quantization": INT8},
        {"tokenizer": tiny("llama", 16).source},
        {"chat_template": PLAIN},
        {"load": {"rms_norm_eps": 0.5}},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_each_field_is_part_of_equality(fields: dict[str, Any], tmp_path: Path) -> None:
    same, other = declared(**fields), declared()
    assert same == declared(**fields)
    assert hash(same) == hash(declared(**fields))
    assert same != other
    plan = team(same, other).compile()
    assert len(plan.backbones) == 2
    assert len(team(same, declared(**fields)).compile().backbones) == 1
    for suffix in ("yaml", "json"):
        path = team(same, other).save(tmp_path / f"team.{suffix}")
        assert lm.Graph.load(path).compile() == plan
    assert lm.Plan.open(plan.save(tmp_path / "plan.json")) == plan


def test_a_saved_team_names_its_files_and_keeps_its_texts(tmp_path: Path) -> None:
    fields = {"chat_template": PLAIN, "tokenizer": tiny("llama", 16).source}
    system = team(declared(**fields)).compile().load()
    again = lm.System.from_pretrained(system.save_pretrained(tmp_path / "team"))
    assert again.plan == system.plan
    assert again.backbone_of("one").tokenizer.chat_template == PLAIN
    assert again.run(QUESTIONS).token_ids == system.run(QUESTIONS).token_ids


GRAPH_FILE = """
name: pair
inputs: [question]
rounds: 1
backbones:
  small:
    source: ./model
    tokenizer: ./words
    chat_template_file: chat.jinja
    quantization: torchao:int8_weight_only
  other:
    source: ./model
    quantization: {kind: bitsandbytes:nf4, double_quant: true}
    load: {use_safetensors: true}
agents:
  - {name: one, backbone: small, prompt: "{{ question }}"}
  - {name: two, backbone: other, prompt: "{{ one }} {{ question }}"}
edges: [{source: one, target: two, slot: one}]
output: two
"""


def test_a_graph_file_names_files_beside_it(folder: Path) -> None:
    shutil.copytree(folder, folder.parent / "words")
    (folder.parent / "chat.jinja").write_text(PLAIN)
    path = folder.parent / "team.yaml"
    path.write_text(GRAPH_FILE)
    small, other = lm.GraphSpec.load(path).backbones.values()
    assert (small.source, small.tokenizer) == (str(folder), str(folder.parent / "words"))
    assert small.chat_template == PLAIN
    assert small.quantization is not None
    assert small.quantization.kind == INT8
    assert other.quantization is not None
    assert other.quantization.double_quant
    jsonschema.validate(yaml.safe_load(GRAPH_FILE), lm.GraphSpec.json_schema())
    (folder.parent / "chat.jinja").unlink()
    with pytest.raises(lm.GraphError, match=r"chat_template_file 'chat\.jinja' cannot be read"):
        lm.GraphSpec.load(path)


# --- refusals at compile ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("quantization", "bitsandbytes:nf5", "bitsandbytes:nf4"),
        ("quantization", {"kind": INT8, "double_quant": True}, "double_quant is an option of"),
        ("quantization", {"kind": INT8, "treshold": 1.0}, "did you mean 'threshold'?"),
        ("quantization", {"kind": INT8, "threshold": 1.0}, "threshold is an option of"),
        ("quantization", {"kind": INT8, "skip_modules": ["(a+)+$"]}, "skip_modules.0"),
        ("chat_template", "chat.jinja", "lm.prompt_file(path)"),
        ("load", {"key": object()}, "load"),
        ("load", {"key": float("inf")}, "is not finite"),
        ("tokenizer", "https://user:hf_aBcDeFgHiJkLmNoPqRsTuVwXyZ012345@host/x", "holds a secret"),
        ("chat_template", "{{ 1 }} hf_aBcDeFgHiJkLmNoPqRsTuVwXyZ012345", "holds a secret"),
    ],
)
def test_values_that_a_field_does_not_take(name: str, value: Any, words: str) -> None:
    with pytest.raises(lm.GraphError, match="LM100") as caught:
        declared(**{name: value})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "code", "words"),
    [
        ({"attention": "spda"}, "LM204", ("unknown attention 'spda'", "did you mean 'sdpa'?")),
        ({"attention": "fastest"}, "LM204", ("transformers has eager, sdpa,", "choose one")),
        ({"quantization": INT8, "dtype": "float64"}, "LM204", ("float64", 'dtype="bfloat16"')),
        ({"load": {"torch_dtype": "x"}}, "LM204", ("'torch_dtype'", "use the field dtype")),
        ({"load": {"device_map": "auto"}}, "LM204", ("'device_map'", "device=… to plan.load")),
        ({"load": {"trust_remote_code": True}}, "LM204", ("use the field trust_remote_code",)),
        ({"load": {"quantization_config": {}}}, "LM204", ("use the field quantization",)),
        ({"load": {"attn_implementation": "sdpa"}}, "LM204", ("use the field attention",)),
        ({"load": {"use_kernels": True}}, "LM204", ("runs code from the hub",)),
        ({"load": {"_commit_hash": "x"}}, "LM204", ("internal to transformers",)),
        ({"load": {"varient": "fp16"}}, "LM204", ("did you mean 'variant'?",)),
        ({"load": {"num_hidden_layers": 10**6}}, "LM201", ("no known model",)),
        ({"subfolder": "../model"}, "LM204", ("not a path below the source",)),
        ({"subfolder": "missing"}, "LM201", ("has no subfolder 'missing'",)),
        ({"chat_template": "{% for m in %}{{ m }}"}, "LM205", ("does not parse: line 1",)),
        ({"tokenizer": "./missing"}, "LM205", ("'./missing' does not exist",)),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_what_cannot_serve_is_refused_at_compile(
    fields: dict[str, Any], code: str, words: tuple[str, ...]
) -> None:
    refused(team(declared(**fields)), code, *words)


def test_all_problems_are_named_at_once() -> None:
    wrong = declared(attention="spda", chat_template="{% if %}", load={"dtype": "x", "tp_plan": 1})
    with pytest.raises(lm.GraphError) as caught:
        team(wrong).compile()
    codes = [problem.code for problem in caught.value.problems]
    assert codes.count("LM204") >= 3
    assert "LM205" in codes


def test_a_tokenizer_folder_without_files(tmp_path: Path) -> None:
    refused(team(declared(tokenizer=str(tmp_path))), "LM205", "has no files of a tokenizer")


def test_a_gguf_file_takes_neither_quantization_nor_subfolder(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    path.write_bytes(b"GGUF")
    wrong = lm.Backbone(str(path), quantization=INT8, subfolder="x")
    refused(team(wrong), "LM204", "a GGUF file does not take quantization", "take subfolder")


def test_a_library_that_is_missing_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "latentmas.backbones.loading.libraries.find_spec",
        lambda name: None if name == "bitsandbytes" else find(name),
    )
    refused(
        team(declared(quantization="bitsandbytes:nf4")),
        "LM206",
        "needs the package bitsandbytes",
        "pip install 'latentmas[quantization]'",
    )


def test_a_stored_plan_cannot_ask_for_more_than_a_declaration(tmp_path: Path) -> None:
    """A plan file is not compiled again; its arguments are judged when it is loaded."""
    path = team(declared(load={"use_safetensors": True})).compile().save(tmp_path / "plan.json")
    path.write_text(path.read_text().replace('"use_safetensors"', '"use_kernels"'))
    with pytest.raises(lm.WeightsError, match="LM204 load does not take 'use_kernels'"):
        lm.Plan.open(path).load()


# --- tokenizer, template, subfolder, arguments ------------------------------------------------


def test_a_chat_template_is_used_in_place_of_the_tokenizers(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text(PLAIN)
    found, wanted = run(team(declared(chat_template=PLAIN))), run(team(lm.Backbone(str(folder))))
    assert found.token_ids == wanted.token_ids
    for name, message in wanted.messages.items():
        assert torch.equal(found.messages[name], message)
    other = run(team(declared()))
    assert any((other.messages[n] - m).abs().max() > 1e-3 for n, m in wanted.messages.items())


def test_a_tokenizer_from_elsewhere(folder: Path) -> None:
    words = Path(shutil.copytree(folder, folder.parent / "words"))
    for path in folder.glob("*token*"):
        path.unlink()
    with pytest.raises(lm.WeightsError, match="tokenizer"):
        team(lm.Backbone(str(folder))).compile().load()
    found = run(team(lm.Backbone(str(folder), tokenizer=str(words))))
    assert found.token_ids == run(team(declared())).token_ids


def test_a_tokenizer_with_more_tokens_than_the_model(folder: Path) -> None:
    wrong = tiny("llama", 32).source
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"vocab_size": 200}))
    small = AutoModelForCausalLM.from_config(
        AutoModelForCausalLM.from_pretrained(wrong).config.from_pretrained(folder)
    )
    small.save_pretrained(folder)
    with pytest.raises(lm.WeightsError, match=r"embeddings of 200 tokens.*ids up to 259"):
        team(lm.Backbone(str(folder), tokenizer=wrong)).compile().load()


def test_a_subfolder(folder: Path) -> None:
    source = folder.parent / "repository"
    source.mkdir()
    shutil.copytree(folder, source / "text" / "small")
    backbone = lm.Backbone(str(source), subfolder="text/small")
    assert run(team(backbone)).token_ids == run(team(declared())).token_ids


def test_fields_of_the_configuration_change_facts_and_model() -> None:
    plan = team(declared(load={"max_position_embeddings": 77, "rms_norm_eps": 0.5})).compile()
    (planned,) = plan.backbones.values()
    assert planned.info.max_positions == 77
    assert load_backbone(planned).model.config.rms_norm_eps == 0.5


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_attention_is_what_was_asked(attention: str) -> None:
    (planned,) = team(declared(attention=attention)).compile().backbones.values()
    assert load_backbone(planned).model.config._attn_implementation == attention


# --- quantised weights ------------------------------------------------------------------------

QUANTIZATIONS = (INT8, "torchao:float8_weight_only", "bitsandbytes:int8", "bitsandbytes:nf4")


@pytest.fixture
def quietly() -> Iterator[None]:
    """The libraries warn of casts and of their own old code."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def need(quantization: str) -> None:
    library = quantization.partition(":")[0]
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")


def stored(model: torch.nn.Module) -> int:
    """Bytes of all weights as they are stored."""
    total = 0
    for weight in model.parameters():
        parts = [weight]
        if hasattr(weight, "__tensor_flatten__"):
            parts = [getattr(weight, name) for name in weight.__tensor_flatten__()[0]]
        if hasattr(weight, "quant_state"):  # of bitsandbytes: scales of blocks
            parts.append(weight.quant_state.absmax)
        total += sum(part.numel() * part.element_size() for part in parts)
    return total


@pytest.mark.usefixtures("quietly")
@pytest.mark.parametrize("kind", QUANTIZATIONS)
def test_quantised_weights_run_and_are_counted(kind: str) -> None:
    need(kind)
    wide = {"source": tiny("llama", 128).source, "dtype": "float32"}
    plan = team(lm.Backbone(**wide, quantization=kind)).compile()
    (planned,) = plan.backbones.values()
    system = plan.load()
    backbone = system.backbone_of("one")
    assert backbone.quantized
    costs = planned.info.costs
    assert costs is not None
    assert costs.loaded_bytes(4) == pytest.approx(stored(backbone.model), rel=0.03)
    assert plan.explain().weights == round(costs.loaded_bytes(4))
    results = [
        system.run(QUESTIONS, executor=executor, record=("messages",))
        for executor in ("reference", "cached", "static")
    ]
    tolerance = 0.01 if kind == "bitsandbytes:int8" else 1e-4  # int8 activations are rounded
    for result in results[1:]:
        for name, message in results[0].messages.items():
            assert (result.messages[name] - message).abs().max() < tolerance * message.abs().max()
    with pytest.raises(lm.LatentMASError, match="quantised weights, whose type"):
        system.double()
    with pytest.raises(lm.WeightsError, match=r"LM204.*float64"):
        plan.load(dtype="float64")


def one_position(**fields: Any) -> tuple[Any, torch.Tensor]:
    """The value of one position's states along a direction, and the input embedding of it.

    Loading has called the model without gradients, after which bitsandbytes may repack weights.
    """
    (planned,) = team(declared(dtype="float32", **fields)).compile().backbones.values()
    backbone = load_backbone(planned)
    mask = torch.ones(1, 1, dtype=torch.long)
    x = backbone.embed(torch.tensor([[5]])).detach()
    along = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    return lambda moved: (backbone.step(moved, mask, mask) * along).sum(), x.requires_grad_()


@pytest.mark.usefixtures("quietly")
@pytest.mark.parametrize("kind", [k for k in QUANTIZATIONS if k != "bitsandbytes:int8"])
def test_gradients_are_those_of_the_quantised_weights(kind: str) -> None:
    need(kind)
    value, x = one_position(quantization=kind)
    (gradient,) = torch.autograd.grad(value(x), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    size = 1e-3 * x.norm() / direction.norm()
    with torch.no_grad():
        change = value(x + size * direction) - value(x - size * direction)
    slope = float(change / (2 * size))
    assert float((gradient * direction).sum()) == pytest.approx(slope, rel=0.01)


@pytest.mark.usefixtures("quietly")
def test_gradients_of_rounded_activations_are_close_to_those_of_full_weights() -> None:
    """Differences of outputs show the rounding of bitsandbytes' int8 more than the slope."""
    need("bitsandbytes:int8")
    found, wanted = (
        torch.autograd.grad(value(x), x)[0].flatten()
        for value, x in (one_position(quantization="bitsandbytes:int8"), one_position())
    )
    assert torch.cosine_similarity(found, wanted, dim=0) > 0.98


@pytest.mark.usefixtures("quietly")
def test_a_quantization_without_gradients_runs_and_does_not_train(tmp_path: Path) -> None:
    """torchao's products of rounded activations run, and return wrong gradients."""
    need(INT8)
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig
    from transformers import TorchAoConfig

    source = tiny("llama", 32).source
    model = AutoModelForCausalLM.from_pretrained(
        source,
        dtype=torch.float32,
        quantization_config=TorchAoConfig(Int8DynamicActivationInt8WeightConfig()),
        device_map={"": "cpu"},
    )
    tokenizer = load_backbone(next(iter(team(declared()).compile().backbones.values()))).tokenizer
    system = (
        team(lm.Backbone("given:rounded")).compile(models={"rounded": (model, tokenizer)}).load()
    )
    assert system.run(QUESTIONS).token_ids
    config = lm.OuterConfig(str(tmp_path), max_steps=1, use_cpu=True)
    rows = [{"question": "3 + 4?", "answer": "7"}]
    with pytest.raises(lm.LatentMASError, match="cannot train links: the gradients of a quantised"):
        lm.OuterTrainer(system, config, train_dataset=rows).train()


@pytest.mark.usefixtures("quietly")
def test_a_checkpoint_that_is_quantised_loads_by_its_own_configuration(tmp_path: Path) -> None:
    need(INT8)
    system = team(declared(quantization=INT8, dtype="float32")).compile().load()
    backbone = system.backbone_of("one")
    backbone.model.save_pretrained(tmp_path)
    backbone.tokenizer.save_pretrained(tmp_path)
    plan = team(lm.Backbone(str(tmp_path))).compile()
    (planned,) = plan.backbones.values()
    wanted = next(iter(system.plan.backbones.values())).info.costs
    assert planned.info.costs is not None
    assert wanted is not None
    assert planned.info.costs.quantized == wanted.quantized
    again = plan.load()
    assert again.backbone_of("one").quantized
    assert again.run(QUESTIONS).token_ids == system.run(QUESTIONS).token_ids
    refused(
        team(lm.Backbone(str(tmp_path), quantization="bitsandbytes:nf4")),
        "LM204" if importlib.util.find_spec("bitsandbytes") else "LM206",
    )
    refused(
        team(lm.Backbone(str(tmp_path), quantization=INT8)),
        "LM204",
        "already quantised (torchao)",
        "leave quantization out",
    )


@pytest.mark.parametrize(
    ("own", "bits"),
    [
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, 4.15625),
        ({"quant_method": "awq", "bits": 4, "group_size": 32}, 4.625),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, 4.5),
        ({"quant_method": "bitsandbytes", "load_in_8bit": True}, 8.0),
        ({"quant_method": "fp8"}, 8.0),
        ({"quant_method": "mxfp4"}, 4.25),
        ({"quant_method": "hqq"}, None),
    ],
    ids=lambda value: value["quant_method"] if isinstance(value, dict) else None,
)
def test_costs_of_quantised_checkpoints(own: dict[str, Any], bits: float, folder: Path) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": own}))
    (planned,) = team(lm.Backbone(str(folder))).compile().backbones.values()
    costs = planned.info.costs
    if bits is None:
        assert costs is None
        return
    assert costs is not None
    assert costs.quantized is not None
    assert costs.quantized.bits == bits
    assert costs.quantized.body_parameters < costs.body_parameters


def test_known_models_are_counted_quantised_without_their_files() -> None:
    need(INT8)
    known = lm.Backbone("Qwen/Qwen3-1.7B", quantization=INT8)
    (planned,) = team(known).compile().backbones.values()
    costs = planned.info.costs
    assert costs is not None
    assert costs.loaded_bytes(2) == costs.body_parameters + 2 * costs.head_parameters
