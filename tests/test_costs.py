"""The cost model: counts against models, laws against counters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM, PreTrainedConfig

from latentmas.backbones import KVCache, LoadedBackbone, load_backbone, read_info
from latentmas.backbones._costs import measure_costs
from latentmas.backbones._known import KNOWN
from latentmas.cost.roofline import Model, pairs
from latentmas.plan import PlanBackbone
from latentmas.testing import TINY_FAMILIES, tiny_backbone
from latentmas.testing._shapes import SHAPES, config_of

WINDOW = {"gemma3_text": {"sliding_window": 8}, "mistral": {"sliding_window": 8}}


def loaded(
    family: str, *, dtype: str = "float32", attention: str | None = None, **config: Any
) -> LoadedBackbone:
    spec = tiny_backbone(family, 32, **WINDOW.get(family, {}), **config)
    spec = spec.model_copy(update={"attention": attention})
    return load_backbone(PlanBackbone(spec=spec, info=read_info(spec), agents=("a",)), dtype=dtype)


def model_of(backbone: LoadedBackbone) -> Model:
    info = backbone.planned.info
    assert info.costs is not None
    return Model(info, info.costs, str(backbone.dtype).removeprefix("torch."))


def feed(backbone: LoadedBackbone, state: KVCache, rows: int, new: int) -> None:
    past = getattr(state, "fed", 0)
    x_BTD = torch.randn(rows, new, 32, dtype=backbone.dtype)
    positions_BT = torch.arange(past, past + new).expand(rows, -1)
    mask_BL = torch.ones(rows, past + new, dtype=torch.long)
    with torch.no_grad():
        backbone.step(x_BTD, positions_BT, mask_BL, state)
    state.fed = past + new  # type: ignore[attr-defined]


# ── counts ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_weights_are_counted_as_the_model_has_them(family: str, tied: bool):
    spec = tiny_backbone(family, 32, tie_word_embeddings=tied)
    costs = read_info(spec).costs
    model = AutoModelForCausalLM.from_pretrained(spec.source)
    vocabulary, width = model.get_input_embeddings().weight.shape
    assert costs is not None
    assert costs.loaded_parameters == sum(p.numel() for p in model.parameters())
    assert costs.head_parameters == vocabulary * width
    embeddings = vocabulary * width * (1 if tied else 2)
    assert costs.body_parameters == costs.loaded_parameters - embeddings
    assert costs.dtype == "float32"
    assert sum(costs.layers.values()) == model.config.num_hidden_layers


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_the_state_has_as_many_bytes_as_the_law_says(family: str, dtype: str):
    backbone = loaded(family, dtype=dtype, layers=4)
    model, state, past = model_of(backbone), KVCache(backbone), 0
    state.reserve(0, chunk=0)  # a cache that leaves no room
    for new in (5, 1, 20, 1, 1):  # windows are 8
        feed(backbone, state, 3, new)
        storages = {
            tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes()
            for layer in state.cache.layers
            for tensor in tensors_of(layer)
        }
        assert sum(storages.values()) == model.kept(3, new, past), (new, past)
        past += new


def tensors_of(layer: Any) -> list[torch.Tensor]:
    found = [layer.__dict__.get("keys"), layer.__dict__.get("values")]
    for name in ("recurrent_states", "conv_states"):
        found += layer.__dict__.get(name, {}).values()
    return [value for value in found if isinstance(value, torch.Tensor)]


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_operations_follow_the_law(family: str):
    """Within 2 %, 4 % for the hybrid: the law counts norms as products, the counter none of the
    recurrence. Fed one by one, no pair of positions is computed in vain."""
    backbone = loaded(family, layers=4, attention="eager")
    model, state, counted, said = model_of(backbone), KVCache(backbone), 0, 0.0
    feed(backbone, state, 2, 1)  # a hybrid's first call runs a whole chunk
    for past in range(1, 24):
        with FlopCounterMode(display=False) as counter:
            feed(backbone, state, 2, 1)
        counted += counter.get_total_flops()
        said += model.call(2, 1, past).flops
    assert said == pytest.approx(counted, rel=0.04 if family == "qwen3_5_text" else 0.02)
    assert model.call(2, 23, 1).flops == pytest.approx(said)


@given(st.integers(0, 40), st.integers(0, 40), st.none() | st.integers(1, 50))
def test_pairs_are_those_of_a_mask(new: int, past: int, window: int | None):
    expected = sum(min(past + i, window or past + i) for i in range(1, new + 1))
    assert pairs(new, past, window) == expected


@pytest.mark.parametrize("source", KNOWN)
def test_the_papers_models_are_counted_from_their_shapes(source: str):
    config = config_of(SHAPES[source][0], **SHAPES[source][1])
    text, known = config.get_text_config(decoder=True), KNOWN[source]
    assert (known.hidden_size, known.num_layers, known.vocab_size) == (
        *(text.hidden_size, text.num_hidden_layers, text.vocab_size),
    )
    before = torch.random.get_rng_state()
    costs = measure_costs(config)
    assert torch.equal(before, torch.random.get_rng_state())
    assert costs is not None and known.costs is not None
    assert costs.model_copy(update={"dtype": known.costs.dtype}) == known.costs


@pytest.mark.parametrize(
    "config",
    [
        config_of("mixtral", hidden_size=32, num_hidden_layers=2, num_local_experts=4),
        config_of("gpt2", n_embd=32, n_layer=2, n_head=5),  # heads do not divide the width
    ],
    ids=["experts", "cannot be built"],
)
def test_what_cannot_be_counted_is_none(config: PreTrainedConfig):
    assert measure_costs(config) is None
