"""Links through the vocabulary: against the formula, across tokenizers, and on every executor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import latentmas as lm
from latentmas.links import _pieces
from latentmas.testing import TINY_FAMILIES
from tests.teams import QUESTIONS, load64, tiny
from tests.vocabularies import speaker, tokenizer


def team(
    sender: lm.Backbone, receiver: lm.Backbone | None = None, rounds: int = 1, **options: Any
) -> lm.Graph:
    """Two agents; with several rounds, the second one answers back. No correction by default."""
    options = {"residual": False} | options
    graph = lm.Graph("pair", inputs=["question"], rounds=rounds, latent_steps=5)
    feedback = "{% if back %}{{ back }}{% endif %}" if rounds > 1 else ""
    graph.add_agent("one", sender, prompt=feedback + "{{ question }}", inner="soft_token")
    graph.add_agent(
        "two", receiver or sender, prompt="{{ note }}{{ question }}", inner="soft_token"
    )
    graph.connect("one", "two.note", link="soft_token", **options)
    if rounds > 1:
        graph.feedback("two", "one.back", link="soft_token", residual=False)
    graph.output("two")
    return graph


def run(system: lm.System, samples: list[str] = QUESTIONS, **options: Any) -> lm.RunResult:
    return system.run(samples, record=("messages", "states"), max_new_tokens=4, **options)


def close(found: Tensor, wanted: Tensor, tolerance: float = 1e-9) -> bool:
    """Relative to the largest value; in fp64 by default."""
    return bool((found - wanted).abs().max() <= tolerance * wanted.abs().max().clamp_min(1e-3))


# ── the formula ───────────────────────────────────────────────────────────────────────────────


def formula(system: lm.System, h_BKS: Tensor, tau: float, top_k: int | None) -> Tensor:
    """softmax(head(h) / τ) E, over the tokens that the tokenizer has, one by one."""
    backbone = system.backbone_of("one")
    logits = backbone.model(inputs_embeds=torch.zeros(1, 1, h_BKS.shape[-1]).double()).logits
    assert logits.dtype == torch.float64
    scores = backbone.logits(h_BKS)
    known = sorted(backbone.tokenizer.get_vocab().values())
    rows = []
    for own in scores.flatten(0, 1)[:, known]:
        chosen = own.sort(descending=True).indices[: top_k or len(known)]
        p = (own[chosen] / tau).softmax(0)
        rows.append(p @ backbone.embed(torch.tensor(known)[chosen]))
    return torch.stack(rows).view_as(h_BKS)


@pytest.mark.parametrize("top_k", [None, 1, 7, 10_000])
@pytest.mark.parametrize(
    ("family", "padding", "tied"),
    [("llama", 0, True), ("qwen3", 9, False), ("gemma3_text", 5, True)],
)
def test_messages_follow_the_formula(
    family: str, padding: int, tied: bool, top_k: int | None
) -> None:
    """Tied and untied heads, padded vocabularies, Gemma's scaled embeddings and capped logits."""
    backbone = speaker("bytes", 300, 32, family=family, padding=padding, tied=tied)
    system = load64(team(backbone, temperature=0.7, top_k=top_k))
    system.backbone_of("one").model.generation_config.eos_token_id = None
    result = run(system)
    h_BKS, message_BKD = result.states["round1.one"], result.messages["round1.one->two"]
    shown = (message_BKD != 0).any(dim=-1, keepdim=True)
    assert shown.float().mean() > 0.5
    assert close(message_BKD, formula(system, h_BKS, 0.7, top_k) * shown)


def test_the_inner_link_feeds_the_same_mixture() -> None:
    """A rollout by hand, from the prompt's last state on."""
    system = load64(team(speaker("bytes", 300, 32)))
    inner, backbone = system.link("inner.one"), system.backbone_of("one")
    h_BKS = run(system).states["round1.one"]
    wanted = formula(system, h_BKS, 0.5, None)
    assert close(inner.apply_to(h_BKS), wanted)
    assert inner.in_dim == backbone.planned.info.hidden_size
    assert not list(inner.parameters())


def test_a_low_temperature_is_the_likeliest_token() -> None:
    backbone = speaker("bytes", 300, 32)
    system = load64(team(backbone, temperature=1e-3))
    result = run(system)
    h_BKS, message_BKD = result.states["round1.one"], result.messages["round1.one->two"]
    own = system.backbone_of("one")
    wanted = own.embed(own.logits(h_BKS).argmax(dim=-1))
    shown = (message_BKD != 0).any(dim=-1, keepdim=True)
    assert close(message_BKD, wanted * shown, 1e-6)


# ── across tokenizers ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(("source", "target"), [("bytes", "metaspace"), ("metaspace", "bytes")])
def test_pieces_say_what_the_token_says(source: str, target: str) -> None:
    one, two = tokenizer(source, 400), tokenizer(target, 330)
    ends = {int(one.eos_token_id): int(two.eos_token_id)}
    pieces = _pieces.find_pieces(one, two, ends)
    starts = pieces.counts_V.cumsum(0) - pieces.counts_V
    checked = 0
    for token, id in one.get_vocab().items():
        own = pieces.ids_N[starts[id] : starts[id] + pieces.counts_V[id]].tolist()
        if id in ends:
            assert own == [ends[id]]
        elif id in one.all_special_ids:
            assert own in ([], [two.get_vocab().get(token)])
        else:
            said = str(one.decode([id]))
            if "\ufffd" not in said and not token.startswith("<0x"):
                assert str(two.decode(own)) == said, token
                checked += 1
    assert checked > 60


def test_bytes_of_a_character_are_mapped_to_bytes() -> None:
    one, two = tokenizer("metaspace", 400), tokenizer("bytes", 330)
    pieces = _pieces.find_pieces(one, two, {})
    starts = pieces.counts_V.cumsum(0) - pieces.counts_V
    ids = [one.get_vocab()[f"<0x{byte:02X}>"] for byte in "é".encode()]
    own = [int(pieces.ids_N[starts[id]]) for id in ids]
    assert str(two.decode(own)) == "é"


@pytest.mark.parametrize("top_k", [None, 5])
def test_a_message_is_the_mean_of_the_receivers_pieces(top_k: int | None) -> None:
    system = load64(team(speaker("bytes", 400, 32), speaker("metaspace", 330, 24), top_k=top_k))
    one, two = system.backbone_of("one"), system.backbone_of("two")
    result = run(system)
    h_BKS, message_BKD = result.states["round1.one"], result.messages["round1.one->two"]
    pieces = _pieces.find_pieces(
        one.tokenizer, two.tokenizer, dict.fromkeys(one.stop_ids, two.turn_end_id)
    )
    parts = pieces.ids_N.long().split(pieces.counts_V.tolist())
    zero = torch.zeros(24, dtype=torch.float64)
    table = torch.stack([two.embed(own).mean(0) if len(own) else zero for own in parts])
    logits = one.logits(h_BKS)
    if top_k is not None:
        least = logits.topk(top_k).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    wanted = (logits / 0.5).softmax(dim=-1) @ table
    shown = (message_BKD != 0).any(dim=-1, keepdim=True)
    assert message_BKD.shape[-1] == 24
    assert close(message_BKD, wanted * shown)


def test_the_table_of_tokens_is_kept_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LATENTMAS_CACHE", str(tmp_path))
    one, two = tokenizer("bytes", 400), tokenizer("metaspace", 330)
    built = _pieces.find_pieces(one, two, {3: 3})
    (path,) = (tmp_path / "pieces").iterdir()
    monkeypatch.setattr(_pieces, "_build", None)  # it must not be built again
    again = _pieces.find_pieces(one, two, {3: 3})
    assert torch.equal(built.counts_V, again.counts_V)
    assert torch.equal(built.ids_N, again.ids_N)
    monkeypatch.undo()
    monkeypatch.setenv("LATENTMAS_CACHE", str(tmp_path))
    path.write_bytes(b"not a table")
    assert torch.equal(_pieces.find_pieces(one, two, {3: 3}).ids_N, built.ids_N)
    assert _pieces.find_pieces(one, two, {3: 4}).digest != built.digest


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("LATENTMAS_CACHE", str(tmp_path / "file"))
    pieces = _pieces.find_pieces(tokenizer("bytes", 400), tokenizer("metaspace", 330), {})
    assert int(pieces.counts_V.sum()) == len(pieces.ids_N) > 0


# ── the end of a message ──────────────────────────────────────────────────────────────────────


def ending(graph: lm.Graph, share: float = 0.5) -> lm.System:
    """In fp64, with so many tokens that end a turn that messages end early."""
    system = load64(graph)
    model = system.backbone_of("one").model
    own = system.backbone_of("one").logits(run(system).states["round1.one"]).argmax(-1)
    seen = own.flatten().unique().tolist()
    model.generation_config.eos_token_id = seen[: max(1, int(len(seen) * share))]
    return system


def test_rows_from_the_end_on_are_not_shown() -> None:
    system = ending(team(speaker("bytes", 300, 32)))
    own = system.backbone_of("one")
    result = run(system)
    likeliest = own.logits(result.states["round1.one"]).argmax(dim=-1)
    shown = (result.messages["round1.one->two"] != 0).any(dim=-1)
    for ids, rows in zip(likeliest.tolist(), shown.tolist(), strict=True):
        ends = [k for k, id in enumerate(ids) if id in own.stop_ids]
        count = ends[0] if ends else len(ids)
        assert rows == [True] * count + [False] * (len(ids) - count)
    counts = shown.sum(dim=1).tolist()
    assert min(counts) < max(counts)
    prompts = [turn.prompt_tokens for turn in result.accounting if turn.agent == "two"]
    tokens = sum(len(own.tokenizer(q).input_ids) for q in QUESTIONS)
    frame = prompts[0] - sum(counts) - tokens
    assert frame % len(QUESTIONS) == 0  # what the chat template adds to each row


def test_the_receiver_reads_a_short_message_as_if_k_were_less() -> None:
    """The answer is that of the message cut by hand, alone."""
    system = ending(team(speaker("bytes", 300, 32)))
    result = run(system)
    counts = (result.messages["round1.one->two"] != 0).any(dim=-1).sum(dim=1).tolist()
    for number, count in enumerate(counts):
        if count:
            cut = system.run([QUESTIONS[number]], latent_steps=count, max_new_tokens=4)
            assert cut.token_ids[0] == result.token_ids[number]


def test_a_message_may_be_empty() -> None:
    system = load64(team(speaker("bytes", 300, 32)))
    model = system.backbone_of("one").model
    model.generation_config.eos_token_id = list(range(model.config.vocab_size))
    result = run(system)
    assert not result.messages["round1.one->two"].any()
    assert len(result.texts) == len(QUESTIONS)


def test_edited_messages_keep_their_own_length() -> None:
    """A control that shuffles messages over the rows shuffles their ends, too."""
    system = ending(team(speaker("bytes", 300, 32)))
    plain = run(system).messages["round1.one->two"]
    counts = (plain != 0).any(dim=-1).sum(dim=1)
    rolled = run(system, edit_message=lambda name, message: message.roll(1, 0))
    found = (rolled.messages["round1.one->two"] != 0).any(dim=-1).sum(dim=1)
    assert found.tolist() == counts.roll(1).tolist()


# ── executors, batches, types ─────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_executors_agree_and_batches_equal_singles(family: str) -> None:
    """fp64, two rounds, messages of unequal length; rotary positions and some norms are fp32."""
    system = ending(team(tiny(family, 32), tiny(family, 16, seed=1), rounds=2), share=0.3)
    oracle = run(system, executor="reference", batch_size=1)
    for executor in ("reference", "cached", "static", "offload"):
        for size in (1, 32):
            found = run(system, executor=executor, batch_size=size)
            for name, message in oracle.messages.items():
                assert close(found.messages[name], message, 1e-4), (executor, size, name)
            assert found.token_ids == oracle.token_ids, (executor, size)


def test_bfloat16_runs_and_repeats() -> None:
    system = (
        team(speaker("bytes", 400, 32), speaker("metaspace", 330, 24))
        .compile()
        .load(dtype="bfloat16")
    )
    one, two = run(system), run(system)
    assert one.token_ids == two.token_ids
    assert torch.equal(one.messages["round1.one->two"], two.messages["round1.one->two"])
    assert one.messages["round1.one->two"].isfinite().all()


def test_moving_the_weights_makes_the_table_anew() -> None:
    system = team(speaker("bytes", 400, 32), speaker("metaspace", 330, 24)).compile().load()
    before = run(system).messages["round1.one->two"]
    after = run(system.double()).messages["round1.one->two"]
    assert after.dtype == torch.float64
    assert close(after.float(), before, 1e-4)


# ── learning ──────────────────────────────────────────────────────────────────────────────────


def test_the_correction_starts_at_exactly_zero_and_saves(tmp_path: Path) -> None:
    backbone = speaker("bytes", 300, 32)
    plain = team(backbone).compile().load()
    system = team(backbone, residual=True).compile().load()
    assert torch.equal(
        run(system).messages["round1.one->two"], run(plain).messages["round1.one->two"]
    )
    assert [link.n_parameters > 0 for link in system.plan.links] == [False, True]
    with torch.no_grad():
        system.link("outer.one->two.note").correction.proj2.weight.normal_()
    system.save_pretrained(tmp_path / "team")
    again = lm.System.from_pretrained(tmp_path / "team")
    assert torch.equal(
        run(again).messages["round1.one->two"], run(system).messages["round1.one->two"]
    )


def test_the_correction_learns(tmp_path: Path) -> None:
    backbone = speaker("bytes", 300, 32)
    system = team(backbone, residual=True).compile().load()
    rows = [{"question": question, "answer": "a cat"} for question in ("one", "two", "three")]
    config = lm.OuterConfig(
        str(tmp_path),
        max_steps=12,
        learning_rate=1e-2,
        per_device_train_batch_size=3,
        logging_steps=1,
    )
    trainer = lm.OuterTrainer(system, config, train_dataset=rows)
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]


def test_a_team_without_weights_has_nothing_to_train(tmp_path: Path) -> None:
    system = team(speaker("bytes", 300, 32)).compile().load()
    rows = [{"question": "one", "answer": "two"}]
    with pytest.raises(lm.LatentMASError, match="nothing to train"):
        lm.OuterTrainer(system, lm.OuterConfig(str(tmp_path)), train_dataset=rows)


# ── costs ─────────────────────────────────────────────────────────────────────────────────────


def test_head_and_table_are_costed() -> None:
    """Each row of a message takes two products with the vocabulary, each latent step too."""
    graph = team(tiny("llama", 32))
    plan = graph.compile()
    assert plan.link("inner.one").needs == ("embeddings", "head", "states", "tokenizer")
    info = next(iter(plan.backbones.values())).info
    product = 2 * info.vocab_size * info.hidden_size
    rows = {row.op: row for row in plan.explain(batch=3).rows}
    assert rows["transfer"].flops == 2 * product * 3 * 5  # the outer link alone: it reads h
    other = lm.Graph("pair", inputs=["question"], rounds=1, latent_steps=5)
    other.add_agent("one", tiny("llama", 32), prompt="{{ question }}", inner="identity")
    other.add_agent("two", tiny("llama", 32), prompt="{{ note }}{{ question }}")
    other.connect("one", "two.note", link="identity")
    plain = {row.op: row for row in other.output("two").compile().explain(batch=3).rows}
    assert rows["rollout"].flops - plain["rollout"].flops == 2 * product * 3 * 4
    assert plain["transfer"].flops == 0


def test_a_link_outside_a_system_says_that_it_is_not_attached() -> None:
    kind = lm.link_kinds.get("soft_token")
    link = kind(kind.resolve("outer", {}, 8, 8), 8, 8)
    with pytest.raises(ValueError, match="loaded System"):
        link(torch.zeros(1, 1, 8))
