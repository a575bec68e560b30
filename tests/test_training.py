"""The two trainers: what learns, what stays, what is refused, what a checkpoint holds."""

from __future__ import annotations

import gc
import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import TrainerCallback

import latentmas as lm
from latentmas.engine.packing import answer_ids, pack
from latentmas.evaluation import accuracy, exact_match
from latentmas.testing import tiny_backbone
from latentmas.training.losses.inner import InnerLoss
from latentmas.training.losses.outer import OuterLoss
from latentmas.training.losses.regression import mean_square

ROWS = [{"question": f"{i}+2", "answer": f"={i + 2}"} for i in range(8)]  # answers of one length
FORWARD, BACK = "outer.one->two.one", "outer.two->one.back"
LINKS = ["inner.one", "inner.two", FORWARD, BACK]


def tiny(family: str, width: int, seed: int = 0, layers: int = 1) -> lm.Backbone:
    """Weights large enough for an answer to depend on the messages."""
    return tiny_backbone(family, width, layers=layers, seed=seed, initializer_range=0.3)


def team(**edge: Any) -> lm.Graph:
    """Two agents of two widths and a feedback edge."""
    small, wide = tiny("llama", 16), tiny("llama", 32, seed=1)
    graph = lm.Graph("pair", inputs=["question"], rounds=2, latent_steps=2)
    own = {"inner": "recursive"}
    graph.add_agent("one", small, prompt="{% if back %}{{ back }}{% endif %}{{ question }}", **own)
    graph.add_agent("two", wide, prompt="{{ one }} {{ question }}", **own)
    graph.connect("one", "two", **({"link": "recursive"} | edge))
    graph.feedback("two", "one.back", link="recursive")
    return graph.output("two")


PLAN = team().compile()


@pytest.fixture(scope="module", autouse=True)
def _little_garbage():
    """Each training collects garbage; what was there before need not be looked through again."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture
def system() -> lm.System:
    return PLAN.load()


def weights(system: lm.System) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in system.link_state().items()}


def changed(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Ids of links with a weight that differs."""
    assert before.keys() == after.keys()
    return {link_of(name) for name in before if not torch.equal(before[name], after[name])}


def link_of(name: str) -> str:
    return next(id for id in LINKS if name.startswith(f"{id}."))


def outer(system: lm.System, folder: Path, rows: Any = ROWS, **changes: Any) -> lm.OuterTrainer:
    data = {key: changes.pop(key) for key in ("eval_dataset", "callbacks") if key in changes}
    fields: dict[str, Any] = {"max_steps": 2, "logging_steps": 1, "per_device_train_batch_size": 8}
    config = lm.OuterConfig(output_dir=str(folder), use_cpu=True, **(fields | changes))
    return lm.OuterTrainer(system, config, train_dataset=rows, **data)


def inner(system: lm.System, folder: Path, rows: Any = ROWS, **changes: Any) -> lm.InnerTrainer:
    data = {key: changes.pop(key) for key in ("eval_dataset",) if key in changes}
    fields: dict[str, Any] = {"max_steps": 2, "logging_steps": 1, "per_device_train_batch_size": 8}
    config = lm.InnerConfig(output_dir=str(folder), use_cpu=True, **(fields | changes))
    return lm.InnerTrainer(system, config, train_dataset=rows, **data)


def edge(system: lm.System, folder: Path, rows: Any = ROWS, **changes: Any) -> lm.EdgeTrainer:
    data = {key: changes.pop(key) for key in ("eval_dataset",) if key in changes}
    fields: dict[str, Any] = {"max_steps": 2, "logging_steps": 1, "per_device_train_batch_size": 8}
    config = lm.EdgeConfig(output_dir=str(folder), use_cpu=True, **(fields | changes))
    return lm.EdgeTrainer(system, config, train_dataset=rows, **data)


def losses(trainer: Any) -> list[float]:
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


# --- learning ---------------------------------------------------------------------------------


def test_the_inner_loop_lowers_its_loss(system, tmp_path):
    trainer = inner(system, tmp_path, max_steps=12, learning_rate=0.03)
    trainer.train()
    found = losses(trainer)
    assert len(found) == 12
    assert found[-1] < 0.5 * found[0]


def test_the_outer_loop_learns_eight_rows(tmp_path):
    """Frozen random backbones bound how far it can come."""
    system = PLAN.load()
    options = {"max_steps": 15, "latent_steps": 4, "rounds": 1, "learning_rate": 0.02}
    options |= {"train_links": [FORWARD, "inner.one"]}
    trainer = outer(system, tmp_path, **options)
    trainer.train()
    found = losses(trainer)
    assert found[-1] < 0.8 * found[0]
    options |= {"eval_exact_match": False}
    again = outer(system, tmp_path, eval_dataset=ROWS, **options).evaluate()["eval_loss"]
    assert again < 0.8 * found[0]


def test_the_first_loss_is_that_of_the_loss_module(system, tmp_path):
    wanted = float(OuterLoss(system, system.plan)(ROWS)["loss"].detach())
    trainer = outer(system, tmp_path, max_steps=1)
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(wanted, rel=1e-5)


def test_bfloat16_backbones_train_fp32_links(tmp_path):
    system = PLAN.load(dtype="bfloat16")
    before = weights(system)
    trainer = outer(system, tmp_path, train_links="all", learning_rate=0.01)
    trainer.train()
    assert all(loss == loss for loss in losses(trainer))
    assert {p.dtype for p in system.parameters()} == {torch.float32}
    assert changed(before, weights(system)) == set(LINKS)


# --- what learns and what stays ---------------------------------------------------------------


class Gradients(TrainerCallback):
    """Notes which links have a gradient just before the optimizer's step."""

    def __init__(self, system: lm.System) -> None:
        self.system, self.seen = system, set()

    def on_pre_optimizer_step(self, args, state, control, **_):
        for id in self.system.link_ids():
            if any(p.grad is not None and p.grad.any() for p in self.system.link(id).parameters()):
                self.seen.add(id)


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        ("outer", {FORWARD, BACK}),
        ("inner", {"inner.one", "inner.two"}),
        ("all", set(LINKS)),
        ([BACK], {BACK}),
        ("inner.one", {"inner.one"}),
        ([FORWARD, "inner.two"], {FORWARD, "inner.two"}),
    ],
    ids=lambda value: str(sorted(value) if isinstance(value, set) else value),
)
def test_exactly_the_chosen_links_learn(system, tmp_path, wanted, ids):
    before = weights(system)
    frozen = {
        b.model: {k: v.clone() for k, v in b.model.state_dict().items()}
        for b in system.agent_backbones.values()
    }
    watch = Gradients(system)
    options = {"learning_rate": 0.02, "weight_decay": 0.1}
    outer(system, tmp_path, train_links=wanted, callbacks=[watch], **options).train()
    assert watch.seen == ids
    assert changed(before, weights(system)) == ids
    assert {id for id in LINKS if all(p.requires_grad for p in system.link(id).parameters())} == ids
    for model, kept in frozen.items():
        assert not model.training
        assert all(p.grad is None and not p.requires_grad for p in model.parameters())
        assert all(torch.equal(v, kept[k]) for k, v in model.state_dict().items())


def test_the_inner_loop_trains_inner_links_alone(system, tmp_path):
    before = weights(system)
    inner(system, tmp_path, learning_rate=0.02, weight_decay=0.1).train()
    assert changed(before, weights(system)) == {"inner.one", "inner.two"}


def test_every_parameter_of_a_chosen_link_changes(system, tmp_path):
    before = weights(system)
    outer(system, tmp_path, train_links="all", learning_rate=0.02).train()
    after = weights(system)
    assert not [name for name in before if torch.equal(before[name], after[name])]


def test_a_trainer_after_another_frees_what_it_needs(system, tmp_path):
    inner(system, tmp_path / "a", max_steps=1).train()
    before = weights(system)
    outer(system, tmp_path / "b", max_steps=1, learning_rate=0.01).train()
    assert changed(before, weights(system)) == {FORWARD, BACK}


# --- refusals ---------------------------------------------------------------------------------


def problems(error: lm.GraphError) -> list[tuple[str, str]]:
    return [(problem.code, problem.path) for problem in error.problems]


def test_a_text_edge_on_the_way_is_lm401(tmp_path):
    system = team(link="text").compile().load()
    with pytest.raises(lm.GraphError) as caught:
        outer(system, tmp_path)
    assert problems(caught.value) == [("LM401", f"link {BACK}")]


def test_feedback_in_one_round_is_lm401(system, tmp_path):
    with pytest.raises(lm.GraphError) as caught:
        outer(system, tmp_path, rounds=1)
    assert problems(caught.value) == [("LM401", f"link {BACK}")]
    assert "1 round" in str(caught.value)
    outer(system, tmp_path, rounds=1, train_links=[FORWARD]).train()


def test_a_refusal_leaves_the_system_as_it_was(system, tmp_path):
    with pytest.raises(lm.GraphError):
        outer(system, tmp_path, rounds=1)
    with pytest.raises(lm.DataError):
        outer(system, tmp_path, rows=[{"question": "?"}])
    assert all(p.requires_grad for p in system.parameters())


@pytest.mark.parametrize("wanted", [[], "outer"])
def test_nothing_to_train_is_lm402(tmp_path, wanted):
    one = tiny("llama", 16)
    graph = lm.Graph("pair", inputs=["question"], rounds=1, latent_steps=2)
    graph.add_agent("one", one, prompt="{{ question }}", inner="identity")
    graph.add_agent("two", one, prompt="{{ one }}")
    graph.connect("one", "two", link="identity")
    system = graph.output("two").compile().load()
    with pytest.raises(lm.LatentMASError, match="LM402"):
        outer(system, tmp_path, train_links=wanted)
    with pytest.raises(lm.LatentMASError, match="LM402"):
        inner(system, tmp_path)


@pytest.mark.parametrize(
    ("wanted", "guess"),
    [("outr", "outer"), (["inner.on"], "inner.one"), ([FORWARD, "outer.two->one"], BACK)],
)
def test_an_unknown_link_is_an_error_with_a_suggestion(system, tmp_path, wanted, guess):
    with pytest.raises(lm.UnknownNameError, match=f"did you mean '{re.escape(guess)}'"):
        outer(system, tmp_path, train_links=wanted)


@pytest.mark.parametrize("make", [outer, inner])
@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([ROWS[0], {"question": "?"}], ["row 1", "'answer'", "question"]),
        ([ROWS[0], ROWS[1], {"answer": "?"}], ["row 2", "'question'"]),
        ([{}], ["row 0", "nothing"]),
        ([ROWS[0], "text"], ["row 1", "str"]),
        ([], ["no rows"]),
    ],
)
def test_bad_rows_are_named(system, tmp_path, make, rows, words):
    with pytest.raises(lm.DataError) as caught:
        make(system, tmp_path, rows)
    assert all(word in str(caught.value) for word in ["train_dataset", *words])
    with pytest.raises(lm.DataError) as caught:
        make(system, tmp_path, eval_dataset=rows)
    assert all(word in str(caught.value) for word in ["eval_dataset", *words])


def test_the_answer_field_may_have_another_name(system, tmp_path):
    rows = [{"question": row["question"], "gold": row["answer"]} for row in ROWS]
    with pytest.raises(lm.DataError, match="lacks the field 'answer'"):
        outer(system, tmp_path, rows)
    trainer = outer(system, tmp_path, rows, answer_field="gold", eval_dataset=rows)
    trainer.train()
    assert "eval_exact_match" in trainer.evaluate()


@pytest.mark.parametrize("given", [[1.0], [1.0, 1.0, 1.0], [0.0, 0.0]])
def test_round_weights_must_fit_the_rounds(system, tmp_path, given):
    with pytest.raises(ValueError, match="round_weights takes 2 numbers"):
        outer(system, tmp_path, round_weights=given)


@pytest.mark.parametrize("depth", [{"rounds": 0}, {"latent_steps": 0}])
def test_a_depth_out_of_range_is_lm113(system, tmp_path, depth):
    with pytest.raises(lm.GraphError, match="LM113"):
        outer(system, tmp_path, **depth)


# --- the loss ---------------------------------------------------------------------------------


def test_round_weights_weigh_the_losses_of_each_depth(system):
    plans = [system.plan.replace(rounds=rounds) for rounds in (1, 2, 3)]
    with torch.no_grad():
        single = [float(OuterLoss(system, plan)(ROWS[:3])["loss"]) for plan in plans]
        assert max(single) - min(single) > 1e-4
        for given in ([1.0, 2.0, 3.0], [0.0, 1.0, 0.0], [0.5, 0.0, 0.25], [0.0, 0.0, 1.0]):
            found = float(OuterLoss(system, plans[2], round_weights=given)(ROWS[:3])["loss"])
            wanted = sum(w * loss for w, loss in zip(given, single, strict=True)) / sum(given)
            assert found == pytest.approx(wanted, rel=1e-5)


def test_round_weights_of_rounds_without_an_answer_are_refused(tmp_path):
    """The output agent has no turn in round 1 of this graph: nothing there can be weighed."""
    one = tiny("llama", 16)
    graph = lm.Graph("loop", inputs=["question"], rounds=2, latent_steps=2)
    graph.add_agent("one", one, prompt="{% if mid %}{{ mid }}{% endif %}{{ question }}")
    graph.add_agent("mid", one, prompt="{{ one }}")
    graph.add_agent("two", one, prompt="{{ mid }}")
    graph.connect("one", "mid")
    graph.connect("mid", "two")
    graph.feedback("mid", "one.mid")
    system = graph.output("two").compile().load()
    assert [step.agent for step in system.plan.turns() if step.round == 1] == ["one", "mid"]
    with pytest.raises(ValueError, match="round 1"):
        outer(system, tmp_path, round_weights=[1.0, 1.0])
    outer(system, tmp_path, round_weights=[0.0, 1.0])


def test_the_inner_loss_is_the_regression_of_embeddings(system):
    """Against a plain computation with the whole model, for the agent that reads no message."""
    row, target = ROWS[1], {"one": "answer", "two": "answer"}
    backbone, agent = system.backbone_of("one"), system.plan.graph.agent("one")
    prompt = pack(backbone, agent, [{"question": row["question"]}], {})
    ids = torch.tensor(answer_ids(backbone, row["answer"]))
    x = torch.cat([prompt.x_BTD[0], backbone.embed(ids)])
    h = backbone.model(inputs_embeds=x[None], output_hidden_states=True).hidden_states[-1][0]
    z, e = system.link("inner.one")(h[-len(ids) - 1 : -1]), backbone.embed(ids)
    loss = InnerLoss(system, target, cosine_weight=2.0, mse_weight=0.5)
    loss.inner.pop("two")
    wanted = 2 * (1 - F.cosine_similarity(z, e, dim=-1)).mean()
    wanted = wanted + 0.5 * (z - e).square().mean() / mean_square(backbone)
    assert loss([row])["loss"].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_an_answer_is_scored_with_its_end(system):
    """A longer answer than the others in its batch changes nothing about theirs."""
    loss = OuterLoss(system, system.plan)
    rows = [ROWS[0], {"question": "and a longer one?", "answer": "=22222"}]
    with torch.no_grad():
        together = float(loss(rows)["loss"])
        alone = [float(loss([row])["loss"]) for row in rows]
    lengths = [len(answer_ids(system.backbone_of("two"), row["answer"])) for row in rows]
    assert lengths == [3, 7]
    wanted = (alone[0] * lengths[0] + alone[1] * lengths[1]) / sum(lengths)
    assert together == pytest.approx(wanted, rel=1e-5)


def test_agents_have_targets_of_their_own(system, tmp_path):
    rows = [{**row, "one": "think", "draft": "a draft"} for row in ROWS]
    with torch.no_grad():
        by_name = float(InnerLoss(system, {"one": "one", "two": "draft"})(rows)["loss"])
    trainer = inner(system, tmp_path, rows, max_steps=1, targets={"two": "draft"})
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(by_name, rel=1e-5)
    with pytest.raises(lm.DataError, match="'three', which is not an agent"):
        inner(system, tmp_path, rows, targets={"three": "draft"})
    with pytest.raises(lm.DataError, match="no_such_field"):
        inner(system, tmp_path, rows, targets={"two": "no_such_field"})


def test_targets_as_text_are_not_passed_over(system, tmp_path):
    with pytest.raises(lm.DataError, match="no_such_field"):
        inner(system, tmp_path, targets="no_such_field")


# --- depth, accumulation ----------------------------------------------------------------------


def test_training_depth_may_differ_from_running_depth(system, tmp_path):
    deep = system.plan.replace(rounds=3, latent_steps=1)
    wanted = float(OuterLoss(system, deep)(ROWS)["loss"].detach())
    trainer = outer(system, tmp_path, rounds=3, latent_steps=1, max_steps=1)
    trainer.train()
    assert losses(trainer)[0] == pytest.approx(wanted, rel=1e-5)
    assert system.plan == PLAN
    messages = system.run(["?"], max_new_tokens=1, record=("messages",)).messages
    assert set(messages) == {"round1.one->two", "round1.two->one", "round2.one->two"}
    assert {message.shape[1] for message in messages.values()} == {2}


@pytest.mark.parametrize(("size", "pieces"), [(4, 2), (2, 4)])
def test_accumulated_gradients_equal_one_batch(tmp_path, size, pieces):
    found = []
    for batch, accumulate in ((8, 1), (size, pieces)):
        system = PLAN.load()
        outer(
            system,
            tmp_path / str(batch),
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulate,
            max_steps=1,
            optim="sgd",
            learning_rate=0.1,
            max_grad_norm=1e9,
            train_links="all",
        ).train()
        found.append(weights(system))
    assert changed(weights(PLAN.load()), found[0]) == set(LINKS)
    for name in found[0]:
        assert torch.allclose(found[0][name], found[1][name], atol=1e-5), name


def test_both_executors_train_alike(tmp_path):
    found = []
    for executor in ("cached", "reference"):
        system = PLAN.load()
        outer(
            system, tmp_path / executor, executor=executor, optim="sgd", learning_rate=0.1
        ).train()
        found.append(weights(system))
    for name in found[0]:
        assert torch.allclose(found[0][name], found[1][name], atol=1e-5), name


# --- checkpoints ------------------------------------------------------------------------------

CHECKPOINT = {"README.md", "latentmas.json", "links.safetensors", "prompts"}
STATE = {"optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"}


def files(folder: Path) -> set[str]:
    logs = ("metrics.jsonl", "training.json")
    return {path.name for path in folder.iterdir() if path.name not in logs}


def test_a_checkpoint_holds_links_and_the_optimizers_state(system, tmp_path):
    trainer = outer(system, tmp_path, save_strategy="steps", save_steps=1)
    trainer.train()
    assert files(tmp_path) == {"checkpoint-1", "checkpoint-2"}
    last = tmp_path / "checkpoint-2"
    assert CHECKPOINT | {"training"} <= files(last) <= CHECKPOINT | {"training"} | STATE
    state = load_file(last / "links.safetensors")
    assert all(torch.equal(state[name], tensor) for name, tensor in system.link_state().items())
    assert state.keys() == system.link_state().keys()
    trained = sum(p.numel() for p in system.parameters() if p.requires_grad)
    kept = torch.load(last / "optimizer.pt", weights_only=True)["state"].values()
    assert sum(entry["exp_avg"].numel() for entry in kept) == trained
    size = sum(path.stat().st_size for path in last.rglob("*") if path.is_file())
    assert size < 4 * system.plan.n_parameters + 8 * trained + 100_000


def test_a_checkpoint_opens_as_a_team(system, tmp_path):
    outer(system, tmp_path, save_strategy="steps", save_steps=1, learning_rate=0.05).train()
    again = lm.System.from_pretrained(tmp_path / "checkpoint-2")
    options = {"max_new_tokens": 5, "record": ("messages",)}
    questions = [row["question"] for row in ROWS]
    a, b = system.run(questions, **options), again.run(questions, **options)
    assert a.token_ids == b.token_ids
    assert all(torch.equal(a.messages[name], b.messages[name]) for name in a.messages)
    first = lm.System.from_pretrained(tmp_path / "checkpoint-1")
    assert changed(weights(first), weights(system)) == {FORWARD, BACK}


def test_save_model_writes_a_team(system, tmp_path):
    trainer = outer(system, tmp_path / "out")
    trainer.save_model(str(tmp_path / "mine"))
    assert files(tmp_path / "mine") == CHECKPOINT
    lm.System.from_pretrained(tmp_path / "mine")


def test_old_checkpoints_go(system, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "save_total_limit": 1}
    outer(system, tmp_path, max_steps=3, **options).train()
    assert files(tmp_path) == {"checkpoint-3"}


@pytest.mark.parametrize("make", [outer, inner])
def test_a_resumed_run_equals_one_that_was_not_interrupted(tmp_path, make):
    options = {
        "max_steps": 4,
        "save_strategy": "steps",
        "save_steps": 2,
        "learning_rate": 0.02,
        "per_device_train_batch_size": 3,  # the third batch of an epoch is a short one
        "warmup_steps": 2,
    }
    whole = PLAN.load()
    trainer = make(whole, tmp_path, **options)
    trainer.train()
    resumed = PLAN.load(seed=77)
    again = make(resumed, tmp_path / "again", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for name, tensor in whole.link_state().items():
        assert torch.equal(tensor, resumed.link_state()[name]), name
    assert losses(again)[-2:] == losses(trainer)[-2:]


@pytest.mark.parametrize("given", ["nowhere", True])
@pytest.mark.parametrize("by_name", [True, False])
def test_resuming_from_nowhere_says_so(system, tmp_path, given, by_name):
    trainer = outer(system, tmp_path / "out")
    with pytest.raises(lm.DataError, match="cannot resume"):
        trainer.train(resume_from_checkpoint=given) if by_name else trainer.train(given)


def test_resuming_from_another_team_changes_nothing(system, tmp_path):
    options = {"save_strategy": "steps", "save_steps": 1, "max_steps": 1}
    outer(team(expansion=3).compile().load(), tmp_path, **options).train()
    before = weights(system)
    trainer = outer(system, tmp_path / "out")
    with pytest.raises(lm.WeightsError, match="LM503"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert changed(before, weights(system)) == set()


def test_the_best_checkpoint_is_loaded_at_the_end(system, tmp_path):
    """Best is here what scores highest: the first checkpoint, for the loss falls."""
    trainer = outer(
        system,
        tmp_path,
        eval_dataset=ROWS[:4],
        max_steps=3,
        learning_rate=0.01,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        greater_is_better=True,
        eval_exact_match=False,
    )
    trainer.train()
    found = [entry["eval_loss"] for entry in trainer.state.log_history if "eval_loss" in entry]
    assert len(found) == 3 and found.index(max(found)) == 0
    best = Path(trainer.state.best_model_checkpoint)
    assert best.name == "checkpoint-1"
    state = load_file(best / "links.safetensors")
    assert all(torch.equal(state[name], tensor) for name, tensor in system.link_state().items())
    assert trainer.evaluate()["eval_loss"] == pytest.approx(found[0], rel=1e-5)


# --- evaluation -------------------------------------------------------------------------------


def test_evaluation_decodes_and_compares(system, tmp_path):
    said = system.run(ROWS, max_new_tokens=4).texts
    right = [{**row, "answer": text} for row, text in zip(ROWS, said, strict=True)]
    mixed = [{**row, "answer": "no such"} if i % 2 else row for i, row in enumerate(right)]
    trainer = outer(system, tmp_path, eval_dataset=right, eval_max_new_tokens=4)
    assert trainer.evaluate()["eval_exact_match"] == 1.0
    assert trainer.evaluate(mixed)["eval_exact_match"] == 0.5
    found = trainer.evaluate(right, metric_key_prefix="test")
    assert found["test_exact_match"] == 1.0 and found["test_loss"] > 0
    quiet = outer(system, tmp_path, eval_dataset=right, eval_exact_match=False)
    assert "eval_exact_match" not in quiet.evaluate()


def test_exact_match_is_logged_and_may_choose_the_best(system, tmp_path):
    trainer = outer(
        system,
        tmp_path,
        eval_dataset=ROWS[:2],
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        load_best_model_at_end=True,
        metric_for_best_model="eval_exact_match",
        greater_is_better=True,
        eval_max_new_tokens=2,
    )
    trainer.train()
    assert sum("eval_exact_match" in entry for entry in trainer.state.log_history) == 2
    assert trainer.state.best_metric is not None


@pytest.mark.parametrize("make", [outer, inner, edge])
def test_the_evaluation_loss_does_not_depend_on_the_batch_size(system, tmp_path, make):
    rows = [{"question": f"{i}", "answer": "=" * (1 + 7 * i)} for i in range(5)]
    found = []
    for size in (5, 2, 4):
        options = {"eval_dataset": rows, "per_device_eval_batch_size": size}
        options |= {"eval_exact_match": False} if make is outer else {}
        found.append(make(system, tmp_path, **options).evaluate()["eval_loss"])
    assert found == pytest.approx([found[0]] * 3, rel=1e-5)


@pytest.mark.parametrize("make", [inner, edge])
def test_held_out_rows_are_not_taken_for_rows_that_were_trained_on(system, tmp_path, make):
    """Both count from 0, and what a row gives to learn from is kept."""
    held_out = [{"question": f"{i}?", "answer": f"not {i}"} for i in range(3)]
    options = {"learning_rate": 0.0, "eval_dataset": held_out, "max_steps": 1}
    fresh = make(system, tmp_path, **options).evaluate()["eval_loss"]
    trainer = make(system, tmp_path, **options)
    trainer.train()
    assert trainer.evaluate()["eval_loss"] == pytest.approx(fresh, rel=1e-6)
    later = make(system, tmp_path, **options)
    later.evaluate()
    later.train()
    assert losses(later) == pytest.approx(losses(trainer), rel=1e-6)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    for rows in (ROWS, str(path)):
        assert later.evaluate(rows)["eval_loss"] == pytest.approx(losses(trainer)[0], rel=1e-5)


def test_an_executor_without_gradients_does_not_train(system, tmp_path):
    with pytest.raises(lm.LatentMASError, match="'static', through which no gradient passes"):
        outer(system, tmp_path, executor="static")


def test_evaluation_changes_nothing(system, tmp_path):
    before = weights(system)
    trainer = outer(system, tmp_path, eval_dataset=ROWS)
    trainer.evaluate()
    assert changed(before, weights(system)) == set()
    assert all(p.grad is None for p in system.parameters())


@pytest.mark.parametrize(
    ("said", "answer", "same"),
    [
        ("42", "42", True),
        (" 4\n2 ", "4 2", True),
        ("42", "4 2", False),
        ("a", "A", False),
        ("", " ", True),
    ],
)
def test_exact_match_ignores_white_space_alone(said, answer, same):
    assert exact_match(said, answer) is same


def test_accuracy_is_a_share():
    assert accuracy(["a", "b", "c", "d"], ["a", "x", "c", "d"]) == 0.75
    with pytest.raises(ValueError, match="no predictions"):
        accuracy([], [])
    with pytest.raises(ValueError):
        accuracy(["a"], ["a", "b"])


# --- quiet ------------------------------------------------------------------------------------


def test_nothing_is_printed_on_stdout(system, tmp_path, capfd):
    options = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1}
    trainer = outer(system, tmp_path / "a", eval_dataset=ROWS[:2], **options)
    trainer.train()
    trainer.evaluate()
    trainer.save_model(str(tmp_path / "b"))
    inner(system, tmp_path / "c", eval_dataset=ROWS[:2], **options).train()
    assert capfd.readouterr().out == ""


def test_training_is_deterministic(tmp_path):
    found = []
    for name in "ab":
        torch.manual_seed(len(found))
        system = PLAN.load()
        outer(
            system, tmp_path / name, per_device_train_batch_size=3, max_steps=3, train_links="all"
        ).train()
        found.append(weights(system))
    assert changed(*found) == set()


def test_qwen3_5_trains_through_its_cache(tmp_path):
    """Its linear attention keeps a state that every latent step changes."""
    one, two = (tiny("qwen3_5_text", 16, seed=seed, layers=2) for seed in (0, 1))
    graph = lm.Graph("linear", inputs=["question"], rounds=1, latent_steps=3)
    graph.add_agent("one", one, prompt="{{ question }}")
    graph.add_agent("two", two, prompt="{{ one }}")
    graph.connect("one", "two")
    system = graph.output("two").compile().load()
    trainer = outer(system, tmp_path, ROWS[:2], max_steps=1, train_links="all")
    trainer.train()
    assert losses(trainer)[0] > 0
