"""The edge loop: every edge learns by itself what its sender would have said in words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn import functional as F

import latentmas as lm
from latentmas.engine.packing import pack
from latentmas.testing import tiny_backbone
from latentmas.training.losses.edge import EdgeLoss
from latentmas.training.losses.regression import mean_square
from latentmas.training.losses.teacher_forcing import teacher_force
from latentmas.training.speech import text_twin
from tests.teams import RECURSIVE, tiny

ROWS = [
    {"question": f"{i} + {i}?", "expert": f"double {i}", "answer": str(2 * i)} for i in range(6)
]


def pair(**changes: Any) -> lm.Graph:
    small, wide = tiny("llama", 16), tiny("llama", 32, seed=1)
    options = {"rounds": 2, "latent_steps": 3, **RECURSIVE} | changes
    return lm.templates.distillation(expert=wide, learner=small, **options)


def train(system: lm.System, folder: Path, rows: Any = ROWS, **changes: Any) -> lm.EdgeTrainer:
    fields: dict[str, Any] = {"max_steps": 3, "logging_steps": 1, "per_device_train_batch_size": 6}
    config = lm.EdgeConfig(output_dir=str(folder), use_cpu=True, **(fields | changes))
    trainer = lm.EdgeTrainer(system, config, train_dataset=rows)
    trainer.train()
    return trainer


def test_the_loss_is_the_regression_of_what_would_have_been_read() -> None:
    """By hand, from given texts: both edges, every round that they are used in."""
    system = pair().compile().load()
    targets = {"expert": "expert", "learner": "answer"}
    loss = EdgeLoss(system, targets=targets, cosine_weight=1.0, mse_weight=0.0)
    found = float(loss(ROWS[:1])["loss"].detach())
    row, terms = ROWS[0], []
    edges = [("expert", "learner", "plan", (1, 2)), ("learner", "expert", "feedback", (1,))]
    for sender, receiver, slot, rounds in edges:
        for number in rounds:
            backbone, agent = system.backbone_of(sender), system.plan.graph.agent(sender)
            scope = {"question": row["question"]}
            if sender == "learner":
                scope["plan"] = row["expert"]
            elif number > 1:
                scope["feedback"] = row["answer"]
            text = row[targets[sender]]
            ids = backbone.tokenizer(text, add_special_tokens=False).input_ids
            ids = [*ids, *[backbone.turn_end_id] * 3][:3]  # "0" is shorter than a message
            taught = teacher_force(backbone, pack(backbone, agent, [scope], {}), [ids])
            z = system.link(f"inner.{sender}")(taught.h_ND)
            z = system.link(f"outer.{sender}->{receiver}.{slot}")(z)
            e = system.backbone_of(receiver).embed(torch.tensor(ids))
            terms.append(1 - F.cosine_similarity(z, e, dim=-1))
    assert found == pytest.approx(float(torch.cat(terms).mean().detach()), rel=1e-5)
    assert loss.n_items(ROWS[:1]) == sum(map(len, terms))


def test_without_texts_the_twin_speaks() -> None:
    system = pair().compile().load()
    loss = EdgeLoss(system)
    twin = text_twin(system)
    assert all(twin.backbone_of(n) is system.backbone_of(n) for n in ("expert", "learner"))
    said = loss.speech.speak(ROWS[:2], [0, 1])
    result = twin.run(ROWS[:2])
    assert said[1]["learner", 2] == result.texts[1]
    assert said[0]["expert", 2] == result.text_messages["round2.expert.text"][0]
    assert loss(ROWS[:2], numbers=[0, 1])["loss"] == loss(ROWS[:2], numbers=[0, 1])["loss"]


def test_it_trains_outer_links_and_lowers_the_loss(tmp_path: Path) -> None:
    system = pair().compile().load()
    before = {name: tensor.clone() for name, tensor in system.link_state().items()}
    trainer = train(system, tmp_path, max_steps=30)
    changed = {
        n.rpartition(".")[0] for n, t in system.link_state().items() if t.ne(before[n]).any()
    }
    assert {name.split(".")[0] for name in changed} == {"outer"}
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.6 * losses[0]


def test_all_links_may_learn(tmp_path: Path) -> None:
    system = pair().compile().load()
    train(system, tmp_path, train_links="all")
    assert all(p.requires_grad for p in system.parameters())


def test_given_texts_are_needed_where_they_are_named(tmp_path: Path) -> None:
    system = pair().compile().load()
    train(system, tmp_path, targets={"expert": "expert", "learner": "answer"})
    with pytest.raises(lm.DataError, match="lacks the field 'plan'"):
        train(system, tmp_path, targets={"expert": "plan"})
    with pytest.raises(lm.DataError, match="'exprt', which is not an agent"):
        train(system, tmp_path, targets={"exprt": "plan"})


def test_turns_that_nobody_hears_of_are_left_out(tmp_path: Path) -> None:
    """Without feedback, earlier rounds are not run, and no edge learns from them."""
    small, wide = tiny("llama", 16), tiny("llama", 32, seed=1)
    graph = lm.Graph("open", inputs=["question"], rounds=3, latent_steps=2)
    graph.add_agent("expert", small, prompt="{{ question }}")
    graph.add_agent("learner", wide, prompt="{{ expert }} {{ question }}")
    graph.connect("expert", "learner")
    system = graph.output("learner").compile().load()
    assert [use.round for use in EdgeLoss(system).speech.uses] == [3]
    for targets in (None, {"expert": "expert", "learner": "answer"}):
        losses = [e["loss"] for e in train(system, tmp_path, targets=targets).state.log_history[:2]]
        assert all(0 < loss < 10 for loss in losses)


def test_text_edges_and_sources_are_read_but_not_learnt(tmp_path: Path) -> None:
    graph = pair()
    spec = graph.spec()
    edges = [
        e
        if e.delay
        else e.model_copy(update={"link": spec.edges[0].link.model_copy(update={"kind": "text"})})
        for e in spec.edges
    ]
    system = graph.replace(edges=edges).compile().load()
    loss = EdgeLoss(system)
    assert [use.edge.source for use in loss.speech.uses] == ["learner"]
    train(system, tmp_path, train_links=["outer.learner->expert.feedback"])


def test_unequal_tokenizers_meet_in_their_texts(tmp_path: Path) -> None:
    """The receiver reads the mean of its own tokens for each of the sender's."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path / "other"
    tiny_backbone("llama", 16, folder=folder)
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ["<pad>", "<end>", *letters, "do", "dou"]
    merges = [("d", "o"), ("do", "u")]
    tokenizer = Tokenizer(models.BPE({w: i for i, w in enumerate(words)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>")
    fast.save_pretrained(folder)
    other, plain = lm.Backbone(str(folder)), tiny("llama", 16)
    graph = lm.templates.distillation(
        expert=other,
        learner=plain,
        rounds=1,
        latent_steps=2,
        link="recursive",
        inner="recursive",
    )
    system = graph.compile().load()
    loss = EdgeLoss(
        system, targets={"expert": "expert", "learner": "answer"}, cosine_weight=0.0, mse_weight=1.0
    )
    found = float(loss(ROWS[:1])["loss"].detach())
    sender, receiver = system.backbone_of("expert"), system.backbone_of("learner")
    ids = sender.tokenizer("double 0", add_special_tokens=False).input_ids[:2]
    assert [sender.tokenizer.decode([i]) for i in ids] == ["dou", "b"]
    read = [
        receiver.embed(torch.tensor(receiver.tokenizer(t, add_special_tokens=False).input_ids))
        for t in ("dou", "b")
    ]
    e = torch.stack([part.mean(dim=0) for part in read])
    scope = [{"question": ROWS[0]["question"]}]
    prompt = pack(sender, system.plan.graph.agent("expert"), scope, {})
    taught = teacher_force(sender, prompt, [ids])
    z = system.link("outer.expert->learner.plan")(system.link("inner.expert")(taught.h_ND))
    wanted = (z - e).square().mean(dim=-1).sum() / mean_square(receiver) / 2
    assert found == pytest.approx(float(wanted.detach()), rel=1e-5)


def test_the_demo_team_learns_three_rounds_from_random_links(tmp_path: Path) -> None:
    """What no outer loop does (docs/decisions/0007): from chance upwards, without answers."""
    from latentmas.demo.run import team
    from latentmas.demo.task import heldout_rows, train_rows

    spec = team().spec()
    random = [
        e.model_copy(update={"link": e.link.model_copy(update={"init": "default"})})
        for e in spec.edges
    ]
    system = lm.Graph.from_spec(spec.replace(edges=random)).compile().load()
    held = heldout_rows(128, 0)

    def accuracy() -> float:
        texts = system.run(held, max_new_tokens=1).texts
        pairs = zip(texts, held, strict=True)
        return sum(text.strip() == row["answer"] for text, row in pairs) / len(held)

    assert accuracy() < 0.3
    rows = [{k: v for k, v in row.items() if k != "answer"} for row in train_rows(512, 0)]
    train(system, tmp_path, rows, max_steps=40, per_device_train_batch_size=32, learning_rate=5e-3)
    assert accuracy() > 0.8
