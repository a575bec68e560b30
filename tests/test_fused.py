"""Fused steps give the states that the model's own modules give."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.autograd import forward_ad

import latentmas as lm
from latentmas.backbones import (
    KVCache,
    LoadedBackbone,
    StaticKVCache,
    load_backbone,
    read_info,
)
from latentmas.backbones.auto import Auto
from latentmas.backbones.fused import FusedDecoder, layouts, products
from latentmas.backbones.fused import decoder as decoder_of_fused
from latentmas.backbones.fused.norms import make_norm
from latentmas.backbones.fused.products import make_product, packs
from latentmas.plan import PlanBackbone
from latentmas.testing import tiny_backbone
from tests import remembered

FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma3_text")
TOLERANCE = {"float64": 1e-9, "float32": 2e-6, "bfloat16": 0.03}
"""Relative; the largest of 200 trials were 0, 6e-7 and 0.014."""


def loaded(spec: lm.Backbone, dtype: str = "float64") -> LoadedBackbone:
    return load_backbone(PlanBackbone(spec=spec, info=read_info(spec), agents=("a",)), dtype=dtype)


def reason(backbone: LoadedBackbone) -> str | None:
    return backbone.fused if isinstance(backbone.fused, str) else None


@torch.no_grad()
def steps(
    backbone: LoadedBackbone, mask_BL: Tensor, prompt: int, modules: bool = False, static: int = 0
) -> Tensor:
    """States of single positions after a prompt, (B, L - prompt, D)."""
    rows, length = mask_BL.shape
    ids = torch.randint(4, 250, (rows, length), generator=torch.Generator().manual_seed(1))
    x, positions = backbone.embed(ids), (mask_BL.cumsum(1) - 1).clamp_min(0)
    state = StaticKVCache(backbone, rows, static) if static else KVCache(backbone)
    run: Any = backbone.run_modules if modules else backbone.step
    run(x[:, :prompt], positions[:, :prompt], mask_BL[:, :prompt], state)
    if isinstance(state, StaticKVCache):
        state.advance(prompt)
    found = []
    for i in range(prompt, length):
        if isinstance(state, StaticKVCache):
            state.place(mask_BL[:, : i + 1], positions[:, i])
        found.append(run(x[:, i : i + 1], positions[:, i : i + 1], mask_BL[:, : i + 1], state))
        if isinstance(state, StaticKVCache):
            state.advance(1)
    return torch.cat(found, dim=1)


def apart(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.abs().max())


def ragged(rows: int, length: int, padding: list[int]) -> Tensor:
    mask = torch.ones(rows, length, dtype=torch.long)
    for row, count in enumerate(padding):
        mask[row, :count] = 0
    return mask


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("family", FAMILIES)
def test_steps_equal_those_of_the_modules(family: str, dtype: str) -> None:
    backbone = loaded(tiny_backbone(family, 64, layers=4), dtype)
    assert reason(backbone) is None
    mask = ragged(3, 14, [0, 3, 1])
    wanted = steps(backbone, mask, 8, modules=True)
    assert apart(steps(backbone, mask, 8), wanted) <= TOLERANCE[dtype]
    assert apart(steps(backbone, mask, 8, static=20), wanted) <= TOLERANCE[dtype]


@torch.no_grad()
def prompts(
    backbone: LoadedBackbone, mask_BL: Tensor, cuts: list[int], modules: bool = False
) -> Tensor:
    """State at the end of each part of a prompt, and at two positions after it, (B, N, D)."""
    rows, length = mask_BL.shape
    ids = torch.randint(4, 250, (rows, length), generator=torch.Generator().manual_seed(1))
    x, positions = backbone.embed(ids), (mask_BL.cumsum(1) - 1).clamp_min(0)
    state, found, start = KVCache(backbone), list[Tensor](), 0
    padded = not bool(mask_BL.all())
    for end in [*cuts, length - 2, length - 1, length]:
        given = x[:, start:end], positions[:, start:end], mask_BL[:, :end], state
        if modules:
            found.append(backbone.run_modules(*given, padded=padded)[:, -1])
        else:
            found.append(backbone.step(*given, padded=padded, last=True)[:, 0])
        start = end
    return torch.stack(found, 1)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("family", FAMILIES)
def test_prompts_equal_those_of_the_modules(family: str, dtype: str) -> None:
    backbone = loaded(tiny_backbone(family, 64, layers=4), dtype)
    assert reason(backbone) is None
    for mask in (ragged(3, 14, [0, 3, 1]), torch.ones(2, 14, dtype=torch.long)):
        for cuts in ([], [5], [4, 9]):
            wanted = prompts(backbone, mask, cuts, modules=True)
            assert apart(prompts(backbone, mask, cuts), wanted) <= TOLERANCE[dtype]


WINDOWED = {
    family: loaded(tiny_backbone(family, 32, sliding_window=6))
    for family in ("mistral", "gemma3_text")
}


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from(sorted(WINDOWED)),
    st.lists(st.integers(0, 4), min_size=1, max_size=4),
    st.integers(5, 9),
    st.integers(1, 9),
)
def test_windows_and_padding(family: str, padding: list[int], prompt: int, more: int) -> None:
    backbone, mask = WINDOWED[family], ragged(len(padding), prompt + more, padding)
    assert reason(backbone) is None
    assert apart(steps(backbone, mask, prompt), steps(backbone, mask, prompt, modules=True)) < 1e-9
    cuts = [cut for cut in (3, prompt) if cut < prompt + more - 2]
    wanted = prompts(backbone, mask, cuts, modules=True)
    assert apart(prompts(backbone, mask, cuts), wanted) < 1e-9


@torch.no_grad()
def test_the_last_state_of_modules() -> None:
    backbone, mask = loaded(tiny_backbone("qwen3_5_text", 32, layers=4)), ragged(2, 9, [0, 2])
    assert reason(backbone) is not None
    given = backbone.embed(torch.arange(4, 22).view(2, 9)), mask.cumsum(1) - 1, mask
    whole = backbone.step(*given, KVCache(backbone))
    assert torch.equal(backbone.step(*given, KVCache(backbone), last=True), whole[:, -1:])


def test_biases_on_every_product() -> None:
    spec = tiny_backbone("llama", 32, attention_bias=True, mlp_bias=True)
    backbone, mask = loaded(spec), torch.ones(2, 9, dtype=torch.long)
    for name, weight in backbone.model.named_parameters():
        if name.endswith("bias"):
            weight.data.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    assert reason(backbone) is None
    assert apart(steps(backbone, mask, 5), steps(backbone, mask, 5, modules=True)) < 1e-9


def test_weights_are_stored_once() -> None:
    backbone = loaded(tiny_backbone("qwen2", 32))
    assert isinstance(backbone.fused, FusedDecoder)
    weights = list(backbone.model.parameters())
    stored = {w.untyped_storage().data_ptr(): w.untyped_storage().nbytes() for w in weights}
    assert sum(stored.values()) == sum(weight.nbytes for weight in weights)
    assert backbone.fused.nbytes == 0


def test_steps_follow_weights_that_moved() -> None:
    plan = graph_of(tiny_backbone("llama", 32)).compile()
    system = plan.load(dtype="float32")
    backbone, mask = system.backbone_of("one"), torch.ones(2, 9, dtype=torch.long)
    assert reason(backbone) is None
    system.double()
    assert backbone.dtype == torch.float64
    assert reason(backbone) is None
    assert apart(steps(backbone, mask, 5), steps(backbone, mask, 5, modules=True)) < 1e-9


def graph_of(spec: lm.Backbone) -> lm.Graph:
    graph = lm.Graph("pair", inputs=["question"], rounds=1, latent_steps=3)
    graph.add_agent("one", spec, prompt="{{ question }}")
    graph.add_agent("two", spec, prompt="{{ one }} {{ question }}", max_new_tokens=6)
    graph.connect("one", "two")
    return graph.output("two")


class Shifted(nn.Module):
    """A layer put in place of another, as adapters are."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        shifted: Tensor = self.inner(x) + 0.5
        return shifted


def test_a_replaced_module_is_used() -> None:
    backbone, mask = loaded(tiny_backbone("llama", 32)), torch.ones(1, 9, dtype=torch.long)
    before = steps(backbone, mask, 5)
    attention = backbone.model.get_decoder().layers[0].self_attn
    attention.q_proj = Shifted(attention.q_proj)
    found = steps(backbone, mask, 5)
    assert torch.equal(found, steps(backbone, mask, 5, modules=True))
    assert apart(found, before) > 1e-3
    attention.q_proj = attention.q_proj.inner
    assert apart(steps(backbone, mask, 5), before) < 1e-9


def test_hooks_are_called() -> None:
    backbone, called = loaded(tiny_backbone("llama", 32)), list[int]()
    assert reason(backbone) is None
    layer = backbone.model.get_decoder().layers[1].mlp
    hook = layer.register_forward_hook(lambda *_: called.append(1))
    steps(backbone, torch.ones(1, 7, dtype=torch.long), 5)
    assert len(called) == 3, "the prompt and two steps"
    hook.remove()
    steps(backbone, torch.ones(1, 7, dtype=torch.long), 5)
    assert len(called) == 3


def test_gradients_take_the_modules() -> None:
    backbone = loaded(tiny_backbone("llama", 32))
    x = torch.randn(1, 1, 32, dtype=torch.float64, requires_grad=True)
    state, one = KVCache(backbone), torch.ones(1, 1, dtype=torch.long)
    backbone.step(x, one * 0, one, state).sum().backward()
    assert x.grad is not None


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (lambda: tiny_backbone("qwen3_5_text", 32, layers=4), "not one of the decoders"),
        (
            lambda: tiny_backbone("llama", 32).model_copy(update={"attention": "eager"}),
            "its attention is 'eager'",
        ),
    ],
)
def test_others_say_why_they_are_not_fused(spec: Any, why: str) -> None:
    backbone = loaded(spec(), "float32")
    assert why in (reason(backbone) or "")
    mask = torch.ones(2, 8, dtype=torch.long)
    assert torch.equal(steps(backbone, mask, 5), steps(backbone, mask, 5, modules=True))


def test_a_model_that_computes_otherwise_is_not_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = loaded(tiny_backbone("llama", 32))
    mlp: Any = backbone.model.get_decoder().layers[0].mlp
    plain = type(mlp).forward
    monkeypatch.setattr(type(mlp), "forward", lambda self, x: 1.01 * plain(self, x))
    backbone.workspace.clear()
    assert "replaced methods" in (reason(backbone) or "")
    monkeypatch.undo()
    norm = decoder_of_fused._norm
    scaled = lambda *given: lambda x: 1.01 * norm(*given)(x)  # noqa: E731
    monkeypatch.setattr(decoder_of_fused, "_norm", scaled)
    remembered.faults.clear()
    backbone.workspace.clear()
    assert "changes its states" in (reason(backbone) or "")
    monkeypatch.undo()
    remembered.faults.clear()
    backbone.workspace.clear()
    assert reason(backbone) is None
    mlp.forward = lambda x: 1.01 * plain(mlp, x)
    backbone.workspace.clear()
    assert "replaced methods" in (reason(backbone) or "")


def test_layouts_are_classes_of_transformers() -> None:
    from importlib import import_module

    for layout in layouts:
        module, _, name = layout.decoder.rpartition(".")
        assert isinstance(getattr(import_module(f"transformers.models.{module}"), name), type)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([1e-6, 1e-5, 1e-2]),
    st.floats(-4, 4),
    st.integers(0, 10),
)
def test_norms_are_those_of_torch(
    dtype: torch.dtype, offset: float, eps: float, size: float, seed: int
) -> None:
    torch.manual_seed(seed)
    weight, x_BD = torch.randn(48).to(dtype), (10**size * torch.randn(3, 48)).to(dtype)
    x_BD[1] = 0
    scale = offset + (weight.float() if offset or dtype != torch.float64 else weight)
    normed = nn.functional.rms_norm(x_BD.float(), (48,), None, eps)
    wanted = (scale * (normed.to(dtype) if dtype == torch.float64 and not offset else normed)).to(
        dtype
    )
    found = make_norm(weight, eps, offset, dtype)(x_BD)
    assert found.dtype == dtype
    limit = {torch.float64: 1e-12, torch.float32: 1e-6}.get(dtype, 2 * torch.finfo(dtype).eps)
    torch.testing.assert_close(found, wanted, rtol=limit, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([torch.bfloat16, torch.float16]),
    st.booleans(),
    st.integers(1, 12),
    st.integers(1, 50),
    st.integers(1, 400),
)
def test_wide_products_are_those_of_the_weights(
    dtype: torch.dtype, bias: bool, rows: int, outputs: int, piece: int
) -> None:
    torch.manual_seed(0)
    weight_NK, bias_N = torch.randn(outputs, 24).to(dtype), torch.randn(outputs).to(dtype)
    x_BK, residual_BN = torch.randn(rows, 24).to(dtype), torch.randn(rows, outputs).to(dtype)
    narrow = make_product(weight_NK, bias_N if bias else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "PIECE", piece)
        patch.setattr(products, "fewest_wide", lambda weight: 5)
        product = make_product(weight_NK, bias_N if bias else None)
    assert product.nbytes == narrow.nbytes
    exact = x_BK.double() @ weight_NK.double().t() + (bias_N.double() if bias else 0)
    eps = torch.finfo(dtype).eps
    limit = {"rtol": 2 * eps, "atol": 2 * eps} if rows >= 5 else {"rtol": 0.02, "atol": 0.1}
    assert product(x_BK).dtype == dtype
    torch.testing.assert_close(product(x_BK).double(), exact, **limit)
    found = product.added(residual_BN, x_BK)
    torch.testing.assert_close(found.double(), exact + residual_BN, **limit)


@pytest.mark.parametrize(
    ("dtype", "can", "machine", "fewest"),
    [
        (torch.float32, {}, "x86_64", None),
        (torch.bfloat16, {}, "x86_64", 64),
        (torch.bfloat16, {"amx_bf16": True}, "x86_64", None),
        (torch.bfloat16, {}, "aarch64", None),
        (torch.float16, {}, "x86_64", 64),
        (torch.float16, {"avx512_fp16": True}, "x86_64", None),
    ],
)
def test_which_products_are_wide(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, can: Any, machine: str, fewest: int | None
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"architecture": machine, **can})
    monkeypatch.setattr(products, "_has_products", lambda kind: True)
    weight = torch.zeros(3, 4, dtype=dtype)
    assert products.fewest_wide(weight) == fewest
    monkeypatch.setattr(products, "_has_products", lambda kind: False)
    assert products.fewest_wide(weight) == (None if fewest is None else 8)
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert products.fewest_wide(weight) is None


needs_packing = pytest.mark.skipif(
    not packs(torch.zeros(1, dtype=torch.bfloat16)), reason="this CPU has no bf16 instructions"
)


@needs_packing
@pytest.mark.parametrize("bias", [False, True])
def test_packed_products_are_those_of_the_weights(bias: bool) -> None:
    torch.manual_seed(0)
    weight_NK = torch.randn(40, 24).bfloat16()
    bias_N = torch.randn(40).bfloat16() if bias else None
    x_BK, residual_BN = torch.randn(3, 24).bfloat16(), torch.randn(3, 40).bfloat16()
    product = make_product(weight_NK, bias_N)
    assert product.nbytes == weight_NK.nbytes
    wide = nn.functional.linear(
        x_BK.float(), weight_NK.float(), None if bias_N is None else bias_N.float()
    )
    torch.testing.assert_close(product(x_BK).float(), wide, rtol=0.01, atol=0.03)
    found = product.added(residual_BN, x_BK).float()
    torch.testing.assert_close(found, wide + residual_BN.float(), rtol=0.01, atol=0.06)


@needs_packing
@torch.no_grad()
def test_a_packed_head_gives_the_scores_of_the_module() -> None:
    backbone = loaded(tiny_backbone("gemma3_text", 32, final_logit_softcapping=5.0), "bfloat16")
    h_BD, head = torch.randn(3, 32).bfloat16(), backbone.model.get_output_embeddings()
    wanted = backbone.family.logits(backbone.model, h_BD)
    found = backbone.logits(h_BD)
    torch.testing.assert_close(found.float(), wanted.float(), rtol=0.01, atol=0.05)
    called: list[int] = []
    hook = head.register_forward_hook(lambda *_: called.append(1))
    assert torch.equal(backbone.logits(h_BD), wanted)
    assert called == [1]
    hook.remove()
    backbone.logits(h_BD)
    assert called == [1], "the module is not called where its weights are packed"


@needs_packing
def test_scores_with_gradients_are_those_of_the_module() -> None:
    backbone = loaded(tiny_backbone("llama", 32), "bfloat16")
    h_BD = torch.randn(2, 32).bfloat16().requires_grad_()
    backbone.logits(h_BD).sum().backward()
    assert h_BD.grad is not None


@needs_packing
@torch.no_grad()
def test_tangents_go_through_the_head() -> None:
    backbone = loaded(tiny_backbone("llama", 32), "bfloat16")
    backbone.logits(torch.randn(2, 32).bfloat16())
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.randn(2, 32).bfloat16(), torch.ones(2, 32).bfloat16())
        tangent = forward_ad.unpack_dual(backbone.logits(dual)).tangent
        assert tangent is not None
        assert tangent.abs().max() > 0


class OwnLogits(Auto):
    """A family that knows nothing of heads in another layout."""

    def logits(self, model: Any, h_BD: Tensor) -> Tensor:  # type: ignore[override]
        return 2 * model.get_output_embeddings()(h_BD)


@torch.no_grad()
def test_a_family_without_a_head_parameter_is_never_given_one() -> None:
    backbone = loaded(tiny_backbone("llama", 32), "bfloat16")
    backbone.family = OwnLogits()
    backbone.workspace.clear()
    h_BD = torch.randn(2, 32).bfloat16()
    assert torch.equal(backbone.logits(h_BD), backbone.family.logits(backbone.model, h_BD))


def test_a_replaced_layer_is_used() -> None:
    backbone, mask = loaded(tiny_backbone("llama", 32)), torch.ones(1, 9, dtype=torch.long)
    before, layers = steps(backbone, mask, 5), backbone.model.get_decoder().layers
    layers[0], layers[1] = layers[1], layers[0]
    found = steps(backbone, mask, 5)
    assert torch.equal(found, steps(backbone, mask, 5, modules=True))
    assert apart(found, before) > 1e-3
