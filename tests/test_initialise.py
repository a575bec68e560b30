"""How links start: alignment in closed form, norms, seeds; and what is a parameter of a system."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

import latentmas as lm
from latentmas.backbones import LoadedBackbone, load_backbone, read_info
from latentmas.plan import PlanBackbone
from latentmas.runtime.loading.init_weights import RIDGE, embedding_norm, ridge_alignment
from latentmas.testing import tiny_backbone
from latentmas.training.losses.outer import OuterLoss
from tests.teams import QUESTIONS, sequential, tiny


def wordy(folder: Path, words: list[str], width: int, seed: int = 0) -> lm.Backbone:
    """A random model whose tokenizer knows just these words, after two special tokens."""
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<end>", *words])}
    plain = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<pad>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, pad_token="<pad>", eos_token="<end>", unk_token="<pad>"
    )
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=width,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        eos_token_id=1,
        bos_token_id=None,
        pad_token_id=0,
        initializer_range=0.5,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return lm.Backbone(str(folder))


def load(backbone: lm.Backbone) -> LoadedBackbone:
    return load_backbone(PlanBackbone(spec=backbone, info=read_info(backbone), agents=("a",)))


def vectors(backbone: LoadedBackbone, words: list[str]) -> np.ndarray:
    ids = [backbone.tokenizer.get_vocab()[word] for word in words]
    return backbone.model.get_input_embeddings().weight[ids].double().numpy()


SHARED = [f"shared{i:03}" for i in range(60)]


@pytest.fixture(scope="module")
def two(tmp_path_factory) -> tuple[LoadedBackbone, LoadedBackbone]:
    """Widths 8 and 12; sixty words in common, at other ids."""
    folder = tmp_path_factory.mktemp("two")
    one = wordy(folder / "one", [*(f"mine{i}" for i in range(9)), *SHARED], 8)
    other = wordy(folder / "other", [*reversed(SHARED), "theirs"], 12, seed=1)
    return load(one), load(other)


# --- alignment --------------------------------------------------------------------------------


def test_ridge_is_the_least_squares_solution_with_the_penalty(two):
    source, target = two
    x, y = vectors(source, SHARED), vectors(target, SHARED)
    root = np.sqrt(RIDGE * (x**2).sum(axis=0).mean())
    stacked = np.concatenate([x, root * np.eye(8)])
    wanted = np.linalg.lstsq(stacked, np.concatenate([y, np.zeros((8, 12))]), rcond=None)[0].T
    found = ridge_alignment(source, target)
    assert found.shape == (12, 8) and found.dtype == torch.float32
    assert np.allclose(found.numpy(), wanted, atol=1e-6)


def test_ridge_finds_a_known_map_between_two_tokenizers(two):
    source, target = copy.deepcopy(two[0]), copy.deepcopy(two[1])
    A_DS = torch.randn(12, 8, generator=torch.Generator().manual_seed(3))
    from_ids = [source.tokenizer.get_vocab()[word] for word in SHARED]
    to_ids = [target.tokenizer.get_vocab()[word] for word in SHARED]
    with torch.no_grad():
        embeddings = source.model.get_input_embeddings().weight[from_ids]
        target.model.get_input_embeddings().weight[to_ids] = embeddings @ A_DS.T
        source.model.get_input_embeddings().weight[2] = 1e3  # "mine0": no word of the other
        source.model.get_input_embeddings().weight[:2] = 1e3  # special tokens are no words
    error = (ridge_alignment(source, target) - A_DS).norm() / A_DS.norm()
    assert error < 1e-3


def test_no_word_in_common_is_an_error_that_names_both(two, tmp_path):
    lonely = load(wordy(tmp_path / "lonely", ["nothing", "alike"], 8))
    with pytest.raises(lm.WeightsError, match="share no word") as caught:
        ridge_alignment(two[0], lonely)
    assert lonely.planned.spec.source in str(caught.value)
    assert two[0].planned.spec.source in str(caught.value)


def test_no_word_in_common_stops_loading_only_where_ridge_was_asked(two, tmp_path):
    lonely = wordy(tmp_path / "lonely", ["nothing", "alike"], 12)
    for init in ("default", "near_identity"):
        pair(two[0].planned.spec, lonely, init=init).load()
    with pytest.raises(lm.WeightsError, match="share no word"):
        pair(two[0].planned.spec, lonely, init="ridge").load()


def pair(one: lm.Backbone, two: lm.Backbone, **edge: object) -> lm.Plan:
    graph = lm.Graph("pair", inputs=["question"], rounds=1, latent_steps=4)
    graph.add_agent("one", one, prompt="{{ question }}", inner="recursive")
    graph.add_agent("two", two, prompt="{{ one }} {{ question }}")
    graph.connect("one", "two", **({"link": "recursive"} | edge))
    return graph.output("two").compile()


@pytest.mark.parametrize("kind", ["linear", "linear_residual", "mlp_residual"])
def test_init_ridge_puts_the_alignment_into_the_link(kind):
    system = pair(
        tiny("llama", 16), tiny("llama", 32, seed=1), link=kind, init="ridge", norm="none"
    ).load()
    A_DS = ridge_alignment(system.backbone_of("one"), system.backbone_of("two"))
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(system.link("outer.one->two.one")(x), x @ A_DS.T, atol=1e-5)


def test_init_ridge_on_one_backbone_is_the_identity():
    system = pair(
        tiny("llama", 16), tiny("llama", 16), link="linear", init="ridge", norm="none"
    ).load()
    x = torch.randn(5, 16)
    assert torch.equal(system.link("outer.one->two.one")(x), x)


# --- norms ------------------------------------------------------------------------------------


def test_the_embedding_norm_is_that_of_the_words_alone(two):
    backbone = copy.deepcopy(two[0])
    words = [word for word in backbone.tokenizer.get_vocab() if word not in ("<pad>", "<end>")]
    wanted = np.linalg.norm(vectors(backbone, words), axis=1).mean()
    with torch.no_grad():
        backbone.model.get_input_embeddings().weight[:2] = 1e3
    assert float(embedding_norm(backbone)) == pytest.approx(wanted, rel=1e-5)


KINDS = ["recursive", "linear", "mlp", "linear_residual", "mlp_residual"]


@pytest.mark.parametrize(
    ("kind", "init"),
    [(k, i) for k in KINDS for i in ("default", "ridge") if (k, i) != ("mlp", "ridge")],
)
def test_messages_arrive_with_the_receivers_embedding_norm(kind, init):
    system = pair(tiny("llama", 16), tiny("qwen3", 32, seed=1), link=kind, init=init).load()
    assert system.plan.link("outer.one->two.one").norm == "embedding"
    message_BKD = system.run(QUESTIONS, max_new_tokens=1, record=("messages",)).messages[
        "round1.one->two"
    ]
    wanted = float(embedding_norm(system.backbone_of("two")))
    exact = kind == "recursive"
    assert float(message_BKD.norm(dim=-1).mean()) == pytest.approx(
        wanted, rel=1e-3 if exact else 0.25
    )
    if exact:
        # a row of small variance feels the norm's epsilon
        assert message_BKD.norm(dim=-1) == pytest.approx(torch.full((3, 4), wanted), rel=5e-3)


def test_inner_links_feed_vectors_of_the_agents_own_embedding_norm():
    system = sequential(rounds=1).compile().load()
    states = system.run(QUESTIONS, record=("states",)).states["round1.planner"]
    fed = system.link("inner.planner")(states).norm(dim=-1).detach()
    wanted = float(embedding_norm(system.backbone_of("planner")))
    assert fed == pytest.approx(torch.full_like(fed, wanted), rel=1e-3)


def test_norm_none_leaves_the_scale_alone():
    system = pair(tiny("llama", 16), tiny("llama", 32, seed=1), norm="none").load()
    message = system.run(QUESTIONS, max_new_tokens=1, record=("messages",)).messages[
        "round1.one->two"
    ]
    assert message.norm(dim=-1) == pytest.approx(torch.full((3, 4), 32**0.5), rel=1e-3)


# --- seeds and types --------------------------------------------------------------------------


def state(system: lm.System) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in system.link_state().items()}


def test_equal_seeds_make_equal_weights_and_others_do_not():
    plan = sequential().compile()
    torch.manual_seed(1)
    one = state(plan.load(seed=5))
    torch.manual_seed(2)
    same, other = state(plan.load(seed=5)), state(plan.load(seed=6))
    assert all(torch.equal(one[name], same[name]) for name in one)
    drawn = [name for name in one if ".proj" in name]
    assert drawn and not any(torch.equal(one[name], other[name]) for name in drawn)


def test_loading_leaves_the_global_generator_alone():
    plan = sequential().compile()
    torch.manual_seed(3)
    wanted = torch.rand(4)
    torch.manual_seed(3)
    plan.load(seed=8)
    assert torch.equal(torch.rand(4), wanted)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", None])
def test_links_are_fp32_whatever_the_backbones_are(dtype):
    system = sequential(rounds=2).compile().load(dtype=dtype)
    assert {p.dtype for p in system.parameters()} == {torch.float32}
    assert system.backbone_of("critic").dtype == (getattr(torch, dtype) if dtype else torch.float32)
    result = system.run(QUESTIONS, record=("messages",))
    assert {m.dtype for m in result.messages.values()} == {torch.float32}
    assert all(m.isfinite().all() for m in result.messages.values())


def test_links_start_alike_on_bfloat16_backbones():
    plan = sequential().compile()
    whole, half = state(plan.load()), state(plan.load(dtype="bfloat16"))
    for name in whole:
        assert torch.allclose(whole[name], half[name], rtol=0.03, atol=1e-3), name


# --- parameters -------------------------------------------------------------------------------


def test_only_links_are_parameters_of_a_system():
    system = sequential().compile().load()
    assert sum(p.numel() for p in system.parameters()) == system.plan.n_parameters
    assert {id(p) for p in system.parameters()} == {
        id(p) for name in system.link_ids() for p in system.link(name).parameters()
    }
    assert len(system.state_dict()) == len(system.link_state())


def test_backbones_are_frozen_and_get_no_gradient_from_a_step():
    system = sequential(rounds=2).compile().load()
    models = {id(b.model): b.model for b in system.agent_backbones.values()}.values()
    before = [{k: v.clone() for k, v in model.state_dict().items()} for model in models]
    optimizer = torch.optim.AdamW(system.parameters(), lr=0.1)
    loss = OuterLoss(system, system.plan)([{"question": "3 + 4?", "answer": "7"}])["loss"]
    loss.backward()
    optimizer.step()
    for model, kept in zip(models, before, strict=True):
        assert not model.training
        assert not any(p.requires_grad for p in model.parameters())
        assert all(p.grad is None for p in model.parameters())
        assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())
    assert all(p.grad is not None for p in system.parameters())


def test_train_mode_of_a_system_leaves_backbones_in_eval_mode():
    system = sequential().compile().load().train()
    assert not any(b.model.training for b in system.agent_backbones.values())


def test_a_tiny_backbone_is_the_same_every_time(tmp_path):
    for name in "ab":
        tiny_backbone("llama", 16, seed=4, folder=tmp_path / name)
    a, b = (load(lm.Backbone(str(tmp_path / name))).model.state_dict() for name in "ab")
    assert all(torch.equal(a[key], b[key]) for key in a)
    other = load(tiny_backbone("llama", 16, seed=5)).model.state_dict()
    assert not torch.equal(a["model.embed_tokens.weight"], other["model.embed_tokens.weight"])
