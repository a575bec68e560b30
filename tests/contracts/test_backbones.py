"""What every backbone family must do, and what loading refuses."""

from __future__ import annotations

import importlib
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, LlamaModel

import latentmas as lm
from latentmas.backbones import KVCache, LoadedBackbone, families, load_backbone, read_info
from latentmas.backbones.auto import Auto
from latentmas.backbones.kv_cache.state import RowSelection
from latentmas.plan import PlanBackbone
from latentmas.testing import TINY_FAMILIES, tiny_backbone

# transformers computes norms and rotary angles in fp32 even in fp64 models.
FLOOR = 1e-5
SLIDING = ("mistral", "gemma3_text")
CASES = [(family, None) for family in TINY_FAMILIES] + [(family, 6) for family in SLIDING]
LENGTH = 13


def planned(backbone: lm.Backbone, **changes: object) -> PlanBackbone:
    info = read_info(backbone).model_copy(update=changes)
    return PlanBackbone(spec=backbone, info=info, agents=("a",))


@pytest.fixture(scope="module", params=CASES, ids=lambda c: f"{c[0]}-{c[1] or 'full'}")
def loaded(request) -> LoadedBackbone:
    family, window = request.param
    config = {"initializer_range": 0.12} | ({"sliding_window": window} if window else {})
    return load_backbone(planned(tiny_backbone(family, 32, **config)), dtype="float64")


def tokens(rows: int, length: int = LENGTH) -> Tensor:
    return torch.randint(4, 250, (rows, length), generator=torch.Generator().manual_seed(5))


def count_up(rows: int, length: int, start: int = 0) -> Tensor:
    return torch.arange(start, start + length).expand(rows, length)


def assert_close(a: Tensor, b: Tensor) -> None:
    assert a.shape == b.shape
    assert float((a - b).abs().max() / b.abs().max()) < FLOOR


def one_pass(backbone: LoadedBackbone, ids: Tensor) -> Tensor:
    mask = torch.ones_like(ids)
    return backbone.step(backbone.embed(ids), count_up(*ids.shape), mask)


# --- the model's own results ------------------------------------------------------------------


@torch.no_grad()
def test_states_and_logits_are_the_models_own(loaded):
    ids = tokens(2)
    whole = loaded.model(input_ids=ids, output_hidden_states=True)
    h_BTD = one_pass(loaded, ids)
    assert_close(h_BTD, whole.hidden_states[-1])
    assert_close(loaded.logits(h_BTD), whole.logits)
    assert loaded.logits(h_BTD[:, -1]).shape == (2, loaded.planned.info.vocab_size)


@torch.no_grad()
def test_embeddings_are_what_the_model_reads(loaded):
    ids = tokens(2)
    x_BTD = loaded.embed(ids)
    assert x_BTD.shape == (2, LENGTH, loaded.planned.info.hidden_size)
    assert x_BTD.dtype == loaded.dtype == torch.float64
    assert_close(loaded.model(inputs_embeds=x_BTD).logits, loaded.model(input_ids=ids).logits)
    assert torch.equal(loaded.embed(ids[0, 0]), x_BTD[0, 0])


@torch.no_grad()
def test_states_depend_on_the_whole_prompt(loaded):
    """Without this the comparisons below could compare constants."""
    ids = tokens(1)
    other = ids.clone()
    other[0, -4] = 251 - other[0, -4]
    a, b = one_pass(loaded, ids), one_pass(loaded, other)
    assert torch.allclose(a[:, :-4], b[:, :-4])
    assert (a[:, -1] - b[:, -1]).abs().max() > 1e-3


# --- cache ------------------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("cuts", [(5,), (1,), (12,), (4, 5, 6, 7), (3, 11)])
def test_pieces_equal_one_pass(loaded, cuts):
    ids = tokens(2)
    whole_BTD = one_pass(loaded, ids)
    state, pieces, begin = KVCache(loaded), [], 0
    for end in (*cuts, LENGTH):
        x, mask = loaded.embed(ids[:, begin:end]), torch.ones(2, end, dtype=torch.long)
        pieces.append(loaded.step(x, count_up(2, end - begin, begin), mask, state))
        assert state.length == end
        begin = end
    assert_close(torch.cat(pieces, dim=1), whole_BTD)


@torch.no_grad()
@pytest.mark.parametrize("cut", [None, 9])
def test_left_padding_changes_nothing(loaded, cut):
    """Rows of 13, 8 and 3 tokens, padded on the left, in one piece or in two."""
    lengths = (LENGTH, 8, 3)
    ids, mask = torch.full((3, LENGTH), loaded.pad_id), torch.zeros(3, LENGTH, dtype=torch.long)
    for row, length in enumerate(lengths):
        ids[row, LENGTH - length :] = tokens(3)[row, :length]
        mask[row, LENGTH - length :] = 1
    positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
    x = loaded.embed(ids)
    if cut is None:
        h = loaded.step(x, positions, mask)
    else:
        state = KVCache(loaded)
        first = loaded.step(x[:, :cut], positions[:, :cut], mask[:, :cut], state)
        h = torch.cat([first, loaded.step(x[:, cut:], positions[:, cut:], mask, state)], dim=1)
    for row, length in enumerate(lengths):
        if cut is not None and LENGTH - length >= cut and row:
            continue  # a row that has not begun in the first piece: no prompt is cut there
        alone = one_pass(loaded, tokens(3)[row : row + 1, :length])
        assert_close(h[row : row + 1, LENGTH - length :], alone)


@torch.no_grad()
def test_padding_of_any_content_is_ignored(loaded):
    mask = torch.ones(1, LENGTH, dtype=torch.long)
    mask[:, :4] = 0
    positions = (mask.cumsum(dim=1) - 1).clamp_min(0)
    x = loaded.embed(tokens(1))
    other = x.clone()
    other[:, :4] = 3.0
    a, b = (loaded.step(y, positions, mask)[:, 4:] for y in (x, other))
    assert_close(a, b)


def gradient(backbone: LoadedBackbone, cuts: tuple[int, ...]) -> Tensor:
    """Of a fixed direction of the last logits, in the input embeddings, fed in pieces."""
    x_BTD = backbone.embed(tokens(1)).requires_grad_()
    state, begin = KVCache(backbone), 0
    for end in (*cuts, LENGTH):
        mask = torch.ones(1, end, dtype=torch.long)
        h = backbone.step(x_BTD[:, begin:end], count_up(1, end - begin, begin), mask, state)
        begin = end
    direction = torch.linspace(-1, 1, backbone.planned.info.vocab_size)
    (backbone.logits(h[:, -1]) * direction).sum().backward()
    assert x_BTD.grad is not None
    return x_BTD.grad


@pytest.mark.parametrize("cuts", [(8,), (10, 11, 12)])
def test_gradient_through_the_cache_is_that_of_one_pass(loaded, cuts):
    found = gradient(loaded, cuts)
    assert_close(found, gradient(loaded, ()))
    assert found[0, -5:].abs().sum(dim=-1).min() > 0
    assert all(p.grad is None and not p.requires_grad for p in loaded.model.parameters())
    assert not loaded.model.training


def test_facts_agree_with_the_model(loaded):
    info, config = loaded.planned.info, loaded.model.config.get_text_config(decoder=True)
    assert info.model_type in TINY_FAMILIES
    assert (info.hidden_size, info.num_layers) == (32, config.num_hidden_layers)
    assert info.vocab_size == loaded.model.get_output_embeddings().weight.shape[0]
    assert info.max_positions == 4096
    end = loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")
    assert end in loaded.stop_ids


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_the_type_of_the_weights_is_what_was_asked(dtype):
    backbone = load_backbone(planned(tiny_backbone("llama", 16)), dtype=dtype)
    assert backbone.dtype == getattr(torch, dtype)
    declared = load_backbone(
        planned(tiny_backbone("llama", 16).model_copy(update={"dtype": dtype}))
    )
    assert declared.dtype == getattr(torch, dtype)


# --- every registered family ------------------------------------------------------------------


@pytest.mark.parametrize("name", families.names())
def test_a_family_says_what_it_is(name):
    family = families.get(name)
    if family.__module__.startswith("latentmas."):
        assert family.__module__ == f"latentmas.backbones.{name}"
    assert "Reference:" in (family.__doc__ or "")


def test_no_model_type_belongs_to_two_families():
    types = [t for name in families.names() for t in families.get(name).model_types]
    assert len(types) == len(set(types))


# --- refusals ---------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path) -> Path:
    tiny_backbone("llama", 16, layers=1, folder=tmp_path / "model")
    return tmp_path / "model"


def refused(what: PlanBackbone, *words: str) -> str:
    with pytest.raises(lm.WeightsError) as caught:
        load_backbone(what)
    for word in words:
        assert word in str(caught.value)
    return str(caught.value)


def test_a_folder_that_is_not_there(folder):
    what = planned(lm.Backbone(str(folder)))
    shutil.rmtree(folder)
    refused(what, str(folder), "does not exist")
    with pytest.raises(lm.WeightsError, match="does not exist"):
        read_info(lm.Backbone(str(folder)))


def test_a_width_that_the_plan_does_not_know(folder):
    refused(planned(lm.Backbone(str(folder)), hidden_size=24), "width 16", "24", "compile again")


@pytest.mark.parametrize("content", [b"", b"\x00" * 64, "half"], ids=["empty", "zeros", "half"])
def test_weights_that_are_damaged(folder, content):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:900] if content == "half" else content)
    refused(planned(lm.Backbone(str(folder))), str(folder))


def test_weights_that_are_not_there(folder):
    (folder / "model.safetensors").unlink()
    refused(planned(lm.Backbone(str(folder))), str(folder), "model.safetensors")


def test_weights_of_another_shape_than_the_configuration(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"intermediate_size": 40}))
    refused(planned(lm.Backbone(str(folder))), str(folder))


def test_weights_with_a_tensor_missing(folder):
    """transformers fills the gap with random numbers; a frozen model must not have any."""
    state = load_file(folder / "model.safetensors")
    del state["model.layers.0.mlp.up_proj.weight"]
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    refused(planned(lm.Backbone(str(folder))), "model.layers.0.mlp.up_proj.weight")


def test_a_folder_without_tokenizer(folder):
    for path in folder.glob("token*"):
        path.unlink()
    refused(planned(lm.Backbone(str(folder))), str(folder), "tokenizer")


@pytest.mark.parametrize("text", ["", "{", '{"model_type": "no_such_model"}', "{}"])
def test_a_configuration_that_cannot_be_read(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(lm.WeightsError) as caught:
        read_info(lm.Backbone(str(folder)))
    assert str(folder) in str(caught.value)


def test_a_model_that_is_no_decoder(folder):
    (folder / "config.json").write_text(json.dumps({"model_type": "t5", "d_model": 16}))
    with pytest.raises(lm.WeightsError, match=r"t5.*decoder"):
        read_info(lm.Backbone(str(folder)))


def test_an_unreadable_backbone_is_a_problem_of_the_graph(folder):
    (folder / "config.json").unlink()
    graph = lm.Graph("solo", inputs=["q"], rounds=1)
    graph.add_agent("solo", lm.Backbone(str(folder)), prompt="{{ q }}")
    with pytest.raises(lm.GraphError, match="LM201"):
        graph.output("solo").compile()


# --- families that compute something else -----------------------------------------------------


@pytest.fixture
def register(monkeypatch):
    """Files a family under a name for one test."""
    monkeypatch.setattr(families, "_entries", dict(families._entries))
    return lambda name, family: families.register(name)(family)


class DoubledLogits(Auto):
    def logits(self, model, h_BD):
        return super().logits(model, h_BD) * 2


class NotANumber(Auto):
    def logits(self, model, h_BD):
        return super().logits(model, h_BD) * float("nan")


class NoFinalNorm(Auto):
    def decoder(self, model):
        decoder = super().decoder(model)

        class Bare(torch.nn.Module):
            def forward(self, **inputs):
                output = decoder(**inputs)
                output.last_hidden_state = output.last_hidden_state * 1.2
                return output

        return Bare()


@pytest.mark.parametrize("wrong", [DoubledLogits, NotANumber, NoFinalNorm])
def test_a_family_with_wrong_logits_is_refused(folder, register, wrong):
    register("wrong", wrong)
    what = planned(lm.Backbone(str(folder), family="wrong"))
    refused(what, "different logits", wrong.__name__, "its own family")


def test_a_family_is_found_by_name_and_by_model_type(folder, register):
    class Mine(Auto):
        model_types = ("llama",)

    register("mine", Mine)
    assert isinstance(load_backbone(planned(lm.Backbone(str(folder)))).family, Mine)
    by_name = load_backbone(planned(lm.Backbone(str(folder), family="auto")))
    assert type(by_name.family) is Auto
    with pytest.raises(lm.UnknownNameError, match="did you mean 'auto'"):
        load_backbone(planned(lm.Backbone(str(folder), family="outo")))


# --- models inside installed packages ---------------------------------------------------------


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    root = tmp_path / "site" / "tiny_models_for_a_test"
    root.mkdir(parents=True)
    (root / "__init__.py").write_text("raise RuntimeError('must not be imported')\n")
    tiny_backbone("llama", 16, layers=1, folder=root / "models" / "one")
    tiny_backbone("llama", 16, layers=1, folder=tmp_path / "site" / "outside")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    importlib.invalidate_caches()
    return root


def test_a_model_inside_a_package_loads_without_importing_it(package):
    backbone = lm.Backbone("package:tiny_models_for_a_test/models/one")
    loaded = load_backbone(planned(backbone))
    assert loaded.planned.info.hidden_size == 16
    assert loaded.planned.spec.source.startswith("package:")
    assert "tiny_models_for_a_test" not in sys.modules


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("package:no_such_package_at_all/x", "no Python package 'no_such_package_at_all'"),
        ("package:tiny_models_for_a_test/models/two", "has no folder or GGUF file 'models/two'"),
        ("package:tiny_models_for_a_test/../outside", "has no folder or GGUF file '../outside'"),
        ("package:json.decoder/x", "no Python package"),
        ("package:../x", "no Python package"),
        ("package:", "no Python package"),
        ("package:this/x", "no Python package 'this'"),
    ],
)
def test_a_package_source_that_leads_nowhere(package, source, words):
    with pytest.raises(lm.WeightsError) as caught:
        read_info(lm.Backbone(source))
    assert words in str(caught.value)


# --- states ---------------------------------------------------------------------------------------


def rolled(backbone: LoadedBackbone, state: KVCache, steps: int = 5) -> Tensor:
    """States of some steps of a fixed toy rollout: each state, scaled, is the next input."""
    states, begin = [], state.length
    x = torch.full((2, 1, 32), 0.1, dtype=torch.float64)
    for i in range(steps):
        mask = torch.ones(2, begin + i + 1, dtype=torch.long)
        states.append(backbone.step(x, count_up(2, 1, begin + i), mask, state))
        x = states[-1] * 0.1
    return torch.cat(states, dim=1)


def prefilled(backbone: LoadedBackbone, ids: Tensor) -> KVCache:
    state = KVCache(backbone)
    backbone.step(backbone.embed(ids), count_up(*ids.shape), torch.ones_like(ids), state)
    return state


@torch.no_grad()
def test_a_restored_state_rolls_as_a_fresh_one(loaded):
    ids = tokens(2)
    fresh = rolled(loaded, prefilled(loaded, ids))
    state = prefilled(loaded, ids)
    snapshot = state.snapshot()
    for _ in range(3):  # a snapshot serves more than once
        assert torch.equal(rolled(loaded, state), fresh)
        assert state.length == LENGTH + 5
        state.restore(snapshot)
        assert state.length == LENGTH


@torch.no_grad()
def test_an_expanded_state_is_that_of_repeated_rows(loaded):
    ids = tokens(1)
    state = prefilled(loaded, ids)
    state = state.assemble([RowSelection(state, [0, 0])])
    assert_close(rolled(loaded, state), rolled(loaded, prefilled(loaded, ids.repeat(2, 1))))


# --- models without a family of their own ---------------------------------------------------------

PLAIN = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64}
SERVED: dict[str, dict[str, object]] = {
    "gpt2": GPT,
    "gpt_neox": PLAIN | {"intermediate_size": 64},
    "phi": PLAIN | {"intermediate_size": 64},
    "olmo2": PLAIN | {"intermediate_size": 64, "num_key_value_heads": 2},
}
GEMMA = PLAIN | {
    "num_key_value_heads": 2,
    "head_dim": 8,
    "intermediate_size": 64,
    "global_head_dim": 8,
    "vocab_size_per_layer_input": 260,
    "num_kv_shared_layers": 0,
    "sliding_window": 16,
}
REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "mamba2": (
        {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4, "num_heads": 8, "head_dim": 8},
        "in pieces",
    ),
    "rwkv": ({"hidden_size": 32, "num_hidden_layers": 2}, "padded on the left"),
    "mpt": ({"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64}, "cannot serve"),
    "bloom": ({"hidden_size": 32, "n_layer": 2, "n_head": 4}, "with attention 'eager'"),
    "gemma4_text": (GEMMA | {"hidden_size_per_layer_input": 8}, "fails on input embeddings"),
}


def other_model(model_type: str, config: dict[str, object], folder: Path) -> LoadedBackbone:
    """A tiny model of a type that no family names, with the tokenizer of the others."""
    shutil.copytree(tiny_backbone("llama", 32).source, folder)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    ids = {"vocab_size": 260, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    extra = {"n_groups": 1} if model_type == "mamba2" else {}
    made = AutoConfig.for_model(model_type, **(ids | config | extra | {"initializer_range": 0.12}))
    AutoModelForCausalLM.from_config(made, dtype=torch.float32).save_pretrained(folder)
    return load_backbone(planned(lm.Backbone(str(folder))), dtype="float64")


@torch.no_grad()
@pytest.mark.parametrize("model_type", SERVED)
def test_other_decoders_go_through_auto(model_type, tmp_path):
    backbone = other_model(model_type, SERVED[model_type], tmp_path / "model")
    assert type(backbone.family) is Auto
    ids = tokens(2)
    whole = one_pass(backbone, ids)
    state, mask = KVCache(backbone), torch.ones_like(ids)
    x, pieces = backbone.embed(ids), []
    for begin, end in ((0, 7), (7, 8), (8, LENGTH)):
        positions = count_up(2, end - begin, begin)
        pieces.append(backbone.step(x[:, begin:end], positions, mask[:, :end], state))
    assert_close(torch.cat(pieces, dim=1), whole)


@pytest.mark.parametrize("model_type", REFUSED)
def test_a_model_that_cannot_serve_is_refused_with_the_reason(model_type, tmp_path):
    config, words = REFUSED[model_type]
    with pytest.raises(lm.WeightsError, match=words):
        other_model(model_type, config, tmp_path / "model")


def test_a_model_that_reads_ids_beside_its_embeddings_is_refused(folder, monkeypatch):
    """Gemma 3n adds something for each token's id, and leaves it out where there is none."""
    forward = LlamaModel.forward

    def with_ids(self, input_ids=None, inputs_embeds=None, **options):
        if input_ids is not None:
            inputs_embeds = self.embed_tokens(input_ids) + self.embed_tokens(input_ids - 1)
        return forward(self, inputs_embeds=inputs_embeds, **options)

    monkeypatch.setattr(LlamaModel, "forward", with_ids)
    refused(planned(lm.Backbone(str(folder))), "reads token ids beside its input embeddings")


def test_the_end_of_a_turn_ends_a_text(tmp_path):
    """Gemma's tokenizer ends sequences with one token, and its turns with another."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_backbone("gemma3_text", 32).source, folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 106]}')
    assert load_backbone(planned(lm.Backbone(str(folder)))).stop_ids == {2, 106}
