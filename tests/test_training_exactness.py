"""Gradients in every mode of memory, the released recipe, kept states, items, curricula, data."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import signal
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from safetensors.torch import load_file
from transformers import TrainerCallback

import latentmas as lm
from latentmas.engine import executors
from latentmas.engine.packing import answer_ids, pack
from latentmas.testing import TINY_FAMILIES
from latentmas.training import stability
from latentmas.training.data import Reading, TrainingRows, drop_long_rows
from latentmas.training.losses.inner import InnerLoss
from latentmas.training.losses.outer import OuterLoss
from latentmas.training.memory.constant import BLOCK, ConstantStates, constant_rollouts
from latentmas.training.memory.estimate import dry_run, estimate
from latentmas.training.memory.saved_tensors import saved_bytes
from latentmas.training.select import freeze_all_but
from latentmas.training.speech import Speech
from tests.processes import run_alone, run_processes
from tests.teams import RECURSIVE, load64, of_template, tiny

ROWS = [
    {"question": "3 + 4?", "answer": "7"},
    {"question": "a much longer question about x", "answer": "no idea at all"},
    {"question": "?", "answer": "yes"},
]


def gradients(system: lm.System, rows: Any = ROWS, **options: Any) -> dict[str, torch.Tensor]:
    loss = OuterLoss(system, system.plan, **options)
    system.zero_grad(set_to_none=True)
    loss(rows)["loss"].backward()
    return {n: p.grad.clone() for n, p in system.named_parameters() if p.grad is not None}


def assert_same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor], floor: float) -> None:
    assert a.keys() == b.keys()
    scale = max(float(grad.abs().max()) for grad in b.values())
    assert max(float((a[name] - b[name]).abs().max()) for name in a) / scale < floor


# --- exact in every mode ------------------------------------------------------------------------


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_gradients_are_the_same_in_every_mode_of_memory(family: str) -> None:
    """fp64; norms and rotary angles are fp32 in transformers, which sets the floor."""
    system = load64(of_template("distillation", family))
    system.requires_grad_(True)
    plain = gradients(system, executor="reference")
    cached = gradients(system, executor="cached")
    assert_same(cached, plain, 1e-4)
    assert_same(gradients(system, executor="cached", checkpoint=True), cached, 1e-6)
    assert_same(gradients(system, executor="reference", checkpoint=True), plain, 1e-6)


def test_a_fixed_prefix_is_read_without_gradients_and_changes_nothing(monkeypatch: Any) -> None:
    system = load64(of_template("sequential", "llama"))
    system.requires_grad_(True)
    split = gradients(system)
    with saved_bytes() as small:
        OuterLoss(system, system.plan)(ROWS)
    monkeypatch.setattr("latentmas.engine.sessions.cached.CachedSession.splits", False)
    whole = gradients(system)
    with saved_bytes() as large:
        OuterLoss(system, system.plan)(ROWS)
    assert_same(split, whole, 1e-5)
    assert small[0] < large[0]


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_keys_and_values_are_kept_once(family: str, monkeypatch: Any) -> None:
    """The same numbers reach the same backward functions: gradients are equal to the bit."""
    window = {"sliding_window": 24} if family in ("mistral", "gemma3_text") else {}
    backbone = lm.testing.tiny_backbone(family, 32, layers=4, **window)
    graph = lm.templates.distillation(
        expert=backbone, learner=backbone, rounds=2, latent_steps=24, **RECURSIVE
    )
    system = load64(graph)
    system.requires_grad_(True)
    sizes, found = {}, {}
    for once in (True, False):
        loss = OuterLoss(system, system.plan)
        loss.deduplicate = once
        with saved_bytes() as saved:
            value = loss(ROWS)["loss"]
        sizes[once] = saved[0]
        system.zero_grad(set_to_none=True)
        value.backward()
        found[once] = [p.grad for p in system.parameters() if p.grad is not None]
    assert found[True] and all(map(torch.equal, found[True], found[False]))
    assert sizes[True] < sizes[False]


def test_checkpointing_keeps_little() -> None:
    system = load64(of_template("distillation", "llama"))
    system.requires_grad_(True)
    sizes = {}
    for checkpoint in (False, True):
        with saved_bytes() as saved:
            OuterLoss(system, system.plan, checkpoint=checkpoint)(ROWS)
        sizes[checkpoint] = saved[0]
    assert sizes[True] < sizes[False] / 5


def test_constant_rollouts_are_kept_across_epochs() -> None:
    system = load64(of_template("mixture", "llama"))
    outer = [link.id for link in system.plan.links if link.role == "outer"]
    freeze_all_but(system, outer)
    constant = {"round1.math", "round1.code", "round1.science"}
    assert constant_rollouts(system, system.plan) == constant
    plain = gradients(system)
    loss = OuterLoss(system, system.plan, rows=TrainingRows(ROWS))
    for _ in range(2):
        system.zero_grad(set_to_none=True)
        loss(ROWS, numbers=[0, 1, 2])["loss"].backward()
        found = {n: p.grad for n, p in system.named_parameters() if p.grad is not None}
        assert_same(found, plain, 1e-6)
    assert loss.constant is not None
    assert len(loss.constant) == 9
    system.requires_grad_(True)
    assert constant_rollouts(system, system.plan) == set()


def test_constant_states_do_not_depend_on_the_batches() -> None:
    """To the bit: a training that resumes in a later epoch meets other batches."""
    system = of_template("mixture", "llama").compile().load()
    freeze_all_but(system, ["outer.math->summarizer.math"])
    rows = TrainingRows([{"question": "x" * (number % 7 + 1)} for number in range(BLOCK + 3)])
    step = next(step for step in system.plan.steps if step.output == "round1.math")
    numbers = [BLOCK + 2, 1, 30]

    def kept(keep_bytes: int = 2**20) -> ConstantStates:
        return ConstantStates(system, executors.get("cached")(), rows, keep_bytes)

    one, other = kept(), kept()
    first = one.states(system.plan, step, numbers)
    for number in reversed(numbers):
        own = other.states(system.plan, step, [number])
        assert torch.equal(own[0], first[numbers.index(number)])
    plain = system.run(rows.plain(), record=("states",)).states["round1.math"]
    assert torch.allclose(first, plain[numbers], atol=1e-4)
    row_bytes = 4 * 3 * (16 + 32 + 16)
    assert kept(2 * row_bytes).states(system.plan, step, [0, 1]) is not None
    assert kept(2 * row_bytes).states(system.plan, step, [0, 2]) is None
    assert kept(0).states(system.plan, step, [0]) is None


@pytest.mark.parametrize(
    ("fields", "rows_rolled"),
    [
        ({"max_steps": 2}, 4),
        ({"max_steps": 5}, 8),
        ({"num_train_epochs": 1}, 8),
    ],
)
def test_rows_that_are_not_read_again_are_rolled_with_their_batch(
    fields: dict[str, Any], rows_rolled: int, tmp_path: Path, monkeypatch: Any
) -> None:
    rows = [{"question": "x" * (number % 7 + 1), "answer": "y"} for number in range(8)]
    rolled, fill = list[int](), ConstantStates._fill

    def count(self: ConstantStates, plan: Any, places: Any) -> None:
        rolled.extend(places)
        fill(self, plan, places)

    def trained(keep: bool) -> dict[str, torch.Tensor]:
        system = load64(of_template("mixture", "llama"))
        options = {"output_dir": str(tmp_path / str(keep)), "use_cpu": True, **fields}
        options |= {
            "per_device_train_batch_size": 2,
            "train_links": ["outer.math->summarizer.math"],
        }
        config = lm.OuterConfig(**options, feature_gib=4.0 if keep else 0.0)
        lm.OuterTrainer(system, config, train_dataset=rows).train()
        return {name: tensor.clone() for name, tensor in system.state_dict().items()}

    monkeypatch.setattr(ConstantStates, "_fill", count)
    found = trained(keep=True)
    assert len(rolled) == len(set(rolled)) == rows_rolled
    wanted = trained(keep=False)
    assert len(rolled) == rows_rolled
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-6)


# --- the released recipe --------------------------------------------------------------------------


def test_the_released_recipe_rolls_on_gold_texts() -> None:
    """By hand, for one row: states after each gold token, the first 80 of them, feed the next."""
    backbone = tiny("llama", 16)
    graph = lm.templates.distillation(
        expert=backbone,
        learner=backbone,
        rounds=2,
        latent_steps=3,
        max_new_tokens=4,
        **RECURSIVE,
    )
    system = load64(graph)
    row = {"question": "3 + 4?", "expert": "add " * 30, "answer": "7"}
    targets = {"expert": "expert", "learner": "answer"}
    loss = OuterLoss(system, system.plan, recipe="released", targets=targets)
    found = float(loss([row])["loss"].detach())

    loaded = system.backbone_of("expert")

    def read(agent: str, text: str, messages: dict[str, torch.Tensor]) -> tuple[Any, Any]:
        spec = system.plan.graph.agent(agent)
        prompt = pack(loaded, spec, [row], messages)
        ids = answer_ids(loaded, text)
        x = torch.cat([prompt.x_BTD, loaded.embed(torch.tensor([ids]))], dim=1)
        places = torch.arange(x.shape[1])[None]
        return loaded.step(x, places, torch.ones_like(places))[0], ids

    def message(edge: str, states: torch.Tensor) -> torch.Tensor:
        inner = system.link(f"inner.{edge.split('->')[0]}")
        return system.link(f"outer.{edge}")(inner(states[None, :80]))

    h, ids = read("expert", row["expert"], {})
    assert len(ids) == 121
    plan = message("expert->learner.plan", h[-len(ids) :])
    assert plan.shape[1] == 80
    h, ids = read("learner", row["answer"], {"plan": plan})
    back = message("learner->expert.feedback", h[-len(ids) :])
    h, ids = read("expert", row["expert"], {"feedback": back})
    plan = message("expert->learner.plan", h[-len(ids) :])
    h, ids = read("learner", row["answer"], {"plan": plan})
    scores = loaded.logits(h[-len(ids) - 1 : -1])
    wanted = float(torch.nn.functional.cross_entropy(scores, torch.tensor(ids)).detach())
    assert found == pytest.approx(wanted, rel=1e-6)


def test_the_released_recipe_leaks_the_answer_and_on_policy_does_not() -> None:
    """Another gold answer changes what the output agent reads in the last round."""
    system = load64(of_template("distillation", "llama"))
    seen: dict[str, list[torch.Tensor]] = {"on_policy": [], "released": []}
    targets = {"expert": "question", "learner": "answer"}
    for recipe, messages in seen.items():
        for answer in ("7", "quite another one"):
            loss = OuterLoss(system, system.plan, recipe=recipe, targets=targets)
            loss.watch = lambda passing, m, out=messages: (
                out.append(m.detach()) if passing.name == "round3.expert->learner" else None,
                m,
            )[1]
            loss([{"question": "3 + 4?", "answer": answer}])
    assert torch.equal(*seen["on_policy"])
    assert not torch.equal(*seen["released"])


# --- items, steps and data ------------------------------------------------------------------------


def pair(small: lm.Backbone | None = None, **changes: Any) -> lm.Graph:
    small = small or tiny("llama", 16)
    options = {"rounds": 2, "latent_steps": 2, "max_new_tokens": 4} | RECURSIVE | changes
    return lm.templates.distillation(expert=small, learner=small, **options)


def outer(folder: Path, system: lm.System | None = None, rows: Any = ROWS, **changes: Any) -> Any:
    data = {key: changes.pop(key) for key in ("eval_dataset", "callbacks") if key in changes}
    fields: dict[str, Any] = {"max_steps": 2, "logging_steps": 1, "per_device_train_batch_size": 3}
    config = lm.OuterConfig(output_dir=str(folder), use_cpu=True, **(fields | changes))
    team = system or pair().compile().load()
    return lm.OuterTrainer(team, config, train_dataset=rows, **data)


@pytest.mark.parametrize("kind", ["Outer", "Inner", "Edge"])
def test_accumulation_equals_one_batch_with_unequal_answers(tmp_path: Path, kind: str) -> None:
    links = []
    for size, pieces in ((4, 1), (1, 4), (2, 2)):
        system = pair().compile().load()
        rows = [*ROWS, {"question": "fourth", "answer": "a fourth and rather long answer"}]
        fields: dict[str, Any] = {
            "output_dir": str(tmp_path / str(size)),
            "use_cpu": True,
            "max_steps": 3,
            "per_device_train_batch_size": size,
            "gradient_accumulation_steps": pieces,
            "learning_rate": 1e-3,
        }
        fields |= {} if kind == "Outer" else {"mse_weight": 1.0}
        config = getattr(lm, f"{kind}Config")(**fields)
        getattr(lm, f"{kind}Trainer")(system, config, train_dataset=rows).train()
        links.append(system.link_state())
    for other in links[1:]:
        assert max(float((other[n] - links[0][n]).abs().max()) for n in other) < 2e-5


def test_round_weights_count_where_the_answering_agent_writes_to_others() -> None:
    """Its earlier turns decode when all that hear of it hear text."""
    small = tiny("llama", 16)
    graph = lm.Graph("texts", inputs=["question"], rounds=2, latent_steps=2)
    prompt = "{% if back %}{{ back }}{% endif %} {{ question }}"
    graph.add_agent("one", small, prompt=prompt, inner="recursive")
    graph.add_agent("two", small, prompt="{{ one }} {{ question }}", max_new_tokens=3)
    graph.connect("one", "two", link="recursive")
    graph.feedback("two", "one.back", link="text")
    system = graph.output("two").compile().load()

    def loss(*weights: float) -> float:
        return float(OuterLoss(system, system.plan, round_weights=weights)(ROWS)["loss"].detach())

    first, last = loss(1, 0), loss(0, 1)
    assert first > 1
    assert loss(3, 1) == pytest.approx((3 * first + last) / 4, rel=1e-6)


def test_agents_that_hear_others_in_swapped_slots_read_for_themselves() -> None:
    small = tiny("llama", 16)
    prompt = "first {{ s0 }} second {{ s1 }} {{ question }}"
    found = []
    for swapped in (["x->n.s1", "y->n.s0"], ["y->n.s0", "x->n.s1"]):
        graph = lm.Graph("swap", inputs=["question"], rounds=1, latent_steps=2)
        for name in "xy":
            graph.add_agent(name, small, prompt=name + " {{ question }}", inner="recursive")
        for name in "mn":
            graph.add_agent(name, small, prompt=prompt, inner="recursive")
        graph.add_agent("out", small, prompt="{{ m }} {{ n }}")
        for edge in ("x->m.s0", "y->m.s1", *swapped, "m->out.m", "n->out.n"):
            graph.connect(*edge.split("->"))
        system = graph.output("out").compile().load()
        fields = {"x": "x", "y": "y", "m": "answer", "n": "answer", "out": "answer"}
        rows = [{"question": "?", "x": "xxxx", "y": "other", "answer": "same"}]
        found.append(float(InnerLoss(system, fields)(rows)["loss"].detach()))
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_every_log_entry_is_a_line_of_metrics(tmp_path: Path) -> None:
    outer(tmp_path, rounds=2).train()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 2]
    first = lines[0]
    link = "outer.expert->learner.plan"
    for key in (f"grad_norm/{link}", f"weight_norm/{link}", f"residual_ratio/{link}"):
        assert first[key] > 0
    assert first["message_grad/round1.learner->expert"] > 0
    assert first["message_norm/round2.expert->learner"] > 0
    assert first["latent_norm/expert"] > 0
    assert first["loss/round1"] > 0
    assert first["loss/round2"] == pytest.approx(first["loss"], rel=1e-3)
    total = math.sqrt(sum(v**2 for k, v in first.items() if k.startswith("grad_norm/")))
    assert total == pytest.approx(first["grad_norm"], rel=1e-4)


def test_telemetry_changes_no_number(tmp_path: Path) -> None:
    states = []
    for telemetry in (True, False):
        system = pair().compile().load()
        outer(tmp_path / str(telemetry), system, telemetry=telemetry).train()
        states.append(system.link_state())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_curriculum_of_rounds(tmp_path: Path) -> None:
    depths: list[int] = []

    class Depths(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
            depths.append(options["model"].plan.graph.rounds)

    system = pair().compile().load()
    trainer = outer(
        tmp_path, system, rounds=[1, 2, 3], max_steps=6, callbacks=[Depths()], eval_dataset=ROWS
    )
    trainer.train()
    assert depths == [1, 1, 2, 2, 3, 3]
    assert trainer.evaluate()["eval_loss"] > 0
    with pytest.raises(lm.LatentMASError, match="goes with one number of rounds"):
        outer(tmp_path, rounds=[1, 2], round_weights=[0.0, 1.0])
    with pytest.raises(lm.LatentMASError, match="empty list"):
        outer(tmp_path, rounds=[])


def test_early_stopping(tmp_path: Path) -> None:
    trainer = outer(
        tmp_path,
        max_steps=40,
        eval_dataset=ROWS,
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=1,
        metric_for_best_model="exact_match",
        load_best_model_at_end=True,
        early_stopping_patience=2,
        learning_rate=0.0,
    )
    assert trainer.train().global_step < 6


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_stops_with_its_rows_named(tmp_path: Path, where: str) -> None:
    system = pair().compile().load()
    trainer = outer(tmp_path, system, save_strategy="steps", save_steps=1, max_steps=5)

    class Break(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 2:
                parameter = next(p for p in system.parameters() if p.requires_grad)
                if where == "gradient":
                    parameter.register_hook(lambda grad: grad * float("nan"))
                else:
                    parameter.data[0] = float("inf")

    trainer.add_callback(Break())
    with pytest.raises(lm.LatentMASError) as caught:
        trainer.train()
    message = str(caught.value)
    assert f"LM403: the {where} is not finite at step 3, rows" in message
    assert "checkpoint-2" in message
    kept = lm.System.from_pretrained(tmp_path / "checkpoint-2")
    assert all(tensor.isfinite().all() for tensor in kept.link_state().values())


def test_long_rows_are_left_out_and_counted(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [*ROWS, {"question": "x" * 600, "answer": "1"}, {"question": "x", "answer": "y" * 600}]
    with caplog.at_level(logging.WARNING, "latentmas.training"):
        trainer = outer(tmp_path, rows=rows, max_length=500)
    assert trainer.left_out == [3, 4]
    assert "2 rows are too long and left out: 3, 4" in caplog.text
    assert len(trainer.train_dataset) == 3
    with pytest.raises(lm.DataError, match="every one of 3 rows"):
        outer(tmp_path, max_length=20)


@pytest.mark.parametrize("loop", ["Inner", "Edge"])
def test_long_rows_are_left_out_of_every_loop(tmp_path: Path, loop: str) -> None:
    """Here the bound is the model's own, 4096 positions or so, and the texts count where said."""
    rows = [*ROWS, {"question": "x" * 20_000, "answer": "1"}]
    config = getattr(lm, f"{loop}Config")(str(tmp_path), max_steps=1, use_cpu=True)
    trainer = getattr(lm, f"{loop}Trainer")(pair().compile().load(), config, train_dataset=rows)
    assert trainer.left_out == [3]
    trainer.train()


@pytest.mark.parametrize(
    "row", [{"question": None, "answer": "1"}, {"question": "1", "answer": None}]
)
def test_null_is_no_text(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(lm.DataError, match=r"train_dataset, row 3: the field '\w+' is null"):
        outer(tmp_path, rows=[*ROWS, row])


def test_a_batch_that_shows_no_message_teaches_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = tiny("llama", 16)
    graph = lm.Graph("some", inputs=["question"], rounds=1, latent_steps=2)
    graph.add_agent("expert", small, prompt="{{ question }}", inner="recursive")
    learner = "{% if question != 'x' %}{{ expert }}{% endif %} {{ question }}"
    graph.add_agent("learner", small, prompt=learner)
    graph.connect("expert", "learner", link="recursive")
    system = graph.output("learner").compile().load()
    before = {name: t.clone() for name, t in system.link_state().items()}
    rows = [{"question": "x", "answer": "1"}] * 3
    outer(tmp_path, system, rows=rows, max_steps=1, weight_decay=0.0).train()
    assert "shows a message" in caplog.text
    assert all(t.equal(before[name]) for name, t in system.link_state().items())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_steps": 0}, "max_steps takes 1 or more"),
        ({"max_steps": -5}, "max_steps takes 1 or more"),
        ({"per_device_train_batch_size": 0}, "per_device_train_batch_size takes 1 or more"),
        ({"gradient_checkpointing": True}, 'checkpoint="rollout"'),
        ({"early_stopping_patience": 1}, "metric_for_best_model"),
        ({"round_weights": [-1.0, 1.0]}, "round_weights takes 2 numbers of 0 or more"),
        ({"round_weights": [0.5, -0.5]}, "round_weights takes 2 numbers of 0 or more"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        outer(tmp_path, pair(rounds=2).compile().load(), **options)


def test_a_trainer_says_what_it_takes(tmp_path: Path) -> None:
    system = pair().compile().load()
    with pytest.raises(TypeError, match=r"is a Plan; give a loaded System, as plan.load\(\)"):
        lm.OuterTrainer(system.plan, lm.OuterConfig(str(tmp_path)), train_dataset=ROWS)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes OuterConfig, not InnerConfig"):
        lm.OuterTrainer(system, lm.InnerConfig(str(tmp_path)), train_dataset=ROWS)  # type: ignore[arg-type]
    with pytest.raises(lm.DataError, match="not a sequence of rows"):
        outer(tmp_path, rows={"question": ["1"], "answer": ["2"]})


def test_data_from_a_file_and_under_other_names(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        "".join(json.dumps({"q": r["question"], "a": r["answer"]}) + "\n" for r in ROWS)
    )
    columns = {"question": "q", "answer": "a"}
    trainer = outer(tmp_path / "out", rows=path, columns=columns, eval_dataset=str(path))
    plain = outer(tmp_path / "plain")
    assert trainer.evaluate()["eval_loss"] == pytest.approx(plain.evaluate(ROWS)["eval_loss"])
    with pytest.raises(lm.DataError, match=r"lacks the field 'question'.*columns="):
        outer(tmp_path, rows=path)
    path.write_text("{")
    with pytest.raises(lm.DataError, match=r"rows\.jsonl:1: not JSON"):
        outer(tmp_path, rows=path)


def test_an_answer_ends_as_the_chat_template_ends_a_turn() -> None:
    """The generation prompt need not be a prefix of the whole rendering."""
    system = pair().compile().load()
    loaded = system.backbone_of("expert")
    assert answer_ids(loaded, "7")[-1] == loaded.tokenizer.convert_tokens_to_ids("<|im_end|>")
    loaded.__dict__.pop("turn_end_id")
    loaded.tokenizer.chat_template = (
        "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}<bos>{% endfor %}"
        "{% if add_generation_prompt %}[assistant]<think>{% endif %}"
    )
    loaded.model.generation_config.eos_token_id = [loaded.tokenizer.bos_token_id, 2]
    assert answer_ids(loaded, "7")[-1] == loaded.tokenizer.bos_token_id


# --- what a user is told beforehand ---------------------------------------------------------------


def test_the_estimate_is_near_what_is_measured() -> None:
    """Within a factor of two, for teams and depths that differ tenfold in size."""
    for family, steps, rounds in (("llama", 2, 1), ("llama", 16, 3), ("qwen3", 8, 2)):
        graph = of_template("distillation", family).replace(
            latent_steps=steps, rounds=max(2, rounds)
        )
        system = graph.compile().load()
        for checkpoint in (False, True):
            loss = OuterLoss(system, system.plan, checkpoint=checkpoint)
            found = dry_run(loss, system, ROWS, checkpoint=checkpoint)
            if not checkpoint:
                assert 0.5 < found.estimate.activations / found.saved < 2, (family, steps)
            assert "measured" in str(found)
    guess = estimate(system, system.plan, ROWS)
    learning = sum(p.numel() for p in system.parameters())
    assert guess.links == 16 * learning
    assert guess.checkpointed < guess.activations


def test_auto_checkpoints_where_memory_is_short(tmp_path: Path, monkeypatch: Any) -> None:
    assert outer(tmp_path).checkpoint is False
    monkeypatch.setattr("latentmas.training.outer.available_bytes", lambda device: 1000)
    assert outer(tmp_path).checkpoint is True
    assert outer(tmp_path, checkpoint="none").checkpoint is False
    with pytest.raises(lm.LatentMASError, match="choose from auto, none, rollout"):
        outer(tmp_path, checkpoint="yes")
    with pytest.raises(lm.LatentMASError, match="choose from on_policy, released"):
        outer(tmp_path, recipe="realeased")


def test_stability_measures_growth_and_training_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    system = pair(latent_steps=6).compile().load()
    found = stability(system, ROWS[:1])
    assert set(found) == {"round1.expert", "round1.learner", "round2.expert"}
    backbone, agent = system.backbone_of("expert"), system.plan.graph.agent("expert")
    prompt, inner = pack(backbone, agent, ROWS[:1], {}), system.link("inner.expert")
    noise = torch.randn(prompt.x_BTD.shape, generator=torch.Generator().manual_seed(0))
    moved = prompt.x_BTD + 1e-3 * prompt.x_BTD.norm() / noise.norm() * noise
    run = executors.get("reference")().rollout
    with torch.no_grad():
        plain = run(backbone, inner, prompt, 6)
        other = run(backbone, inner, prompt._replace(x_BTD=moved), 6)
    distance = (other - plain)[0].norm(dim=-1)
    wanted = float(distance[-1] / distance[0]) ** (1 / 5)
    assert found["round1.expert"] == pytest.approx(wanted, rel=1e-2)
    with caplog.at_level(logging.WARNING, "latentmas.training"):
        pytest.MonkeyPatch().setattr("latentmas.training.outer.UNSTABLE", 1e-9)
        outer(tmp_path, system).train()
    assert "grow" in caplog.text
    assert "latent step" in caplog.text


def test_texts_pass_the_telemetry(tmp_path: Path) -> None:
    """A text edge and a text source beside the latent edge that learns."""
    model = tiny("llama", 16)
    graph = lm.Graph("said", inputs=["question"], rounds=1, latent_steps=2)
    graph.add_text_source("rule", "Be brief.")
    for name, prompt in (
        ("a", "{{ question }}"),
        ("b", "{{ a }}"),
        ("c", "{{ rule }}{{ a }}{{ b }}"),
    ):
        graph.add_agent(name, model, prompt=prompt, max_new_tokens=2, inner="recursive")
    graph.connect("rule", "c")
    graph.connect("a", "b", link="recursive")
    graph.connect("b", "c", link="text")
    graph.connect("a", "c", link="recursive")
    system = graph.output("c").compile().load()
    trainer = outer(
        tmp_path, system, rows=[{"question": "1?", "answer": "2"}], train_links=["a->c.a"]
    )
    trainer.train()
    assert any("message_norm/round1.a->c" in entry for entry in trainer.state.log_history)


def shared_slot(how: str, steps: int = 2) -> lm.System:
    """Two senders whose messages fill one slot."""
    model = tiny("llama", 16)
    graph = lm.Graph("shared", inputs=["question"], rounds=1, latent_steps=steps)
    for name in ("a", "b"):
        graph.add_agent(name, model, prompt="{{ question }}", inner="recursive")
    graph.add_agent("c", model, prompt="{{ notes }}{{ question }}", inner="recursive")
    for name in ("a", "b"):
        graph.connect(name, "c.notes", link="recursive", combine=how)
    return graph.output("c").compile().load()


def test_the_inner_loop_reads_all_texts_of_a_slot() -> None:
    system = shared_slot("concat")
    targets = {"a": "a", "b": "b", "c": "answer"}
    row = {"question": "1?", "a": "text of a", "b": "text of b", "answer": "2"}
    own = InnerLoss(system, targets=targets)._scope(system.plan.graph.agent("c"), row)
    speech = Speech(system, targets)
    assert own == speech._scope("c", 1, row, speech.speak([row])[0])
    assert own["notes"] == "text of a\ntext of b"


@pytest.mark.parametrize(("how", "fits"), [("concat", False), ("mean", True)])
def test_long_rows_are_counted_with_all_messages_of_a_slot(how: str, fits: bool) -> None:
    system = shared_slot(how, steps=300)
    rows = TrainingRows([{"question": "1?", "answer": "2"}] * 2)
    expected = nullcontext() if fits else pytest.raises(lm.DataError, match="longer than")
    with expected:
        assert drop_long_rows(system, system.plan, rows, Reading(), 800)[1] == []


# --- survival -----------------------------------------------------------------------------------


def six_steps(folder: Path | str, *, resume: bool = False) -> None:
    """A training that saves at each step."""
    config = lm.OuterConfig(
        str(folder),
        max_steps=6,
        use_cpu=True,
        per_device_train_batch_size=1,
        logging_steps=1,
        save_strategy="steps",
        save_steps=1,
        save_total_limit=3,
        probe_stability=False,
    )
    trainer = lm.OuterTrainer(pair().compile().load(), config, train_dataset=ROWS)
    trainer.train(resume_from_checkpoint=resume or None)
    trainer.save_model()


def train_until_killed(folder: str, resume: bool, step: int, files: int) -> None:
    """Killed when it opens a file of the checkpoint of a step, after so many others."""
    opened = list[str]()

    def watch(event: str, given: tuple[Any, ...]) -> None:
        if event == "open" and f"checkpoint-{step}" in str(given[0]):
            if len(opened) == files:
                os.kill(os.getpid(), signal.SIGKILL)
            opened.append(str(given[0]))

    sys.addaudithook(watch)
    six_steps(folder, resume=resume)


def test_killed_while_it_saves_a_resumed_training_ends_the_same(tmp_path: Path) -> None:
    """Killed twice here; `benchmarks/crash.py` does it ten times, at any moment."""
    six_steps(tmp_path / "whole")
    whole = load_file(tmp_path / "whole" / "links.safetensors")
    folder, work = tmp_path / "killed", "tests.test_training_exactness:train_until_killed"
    assert run_alone(work, str(folder), False, 2, 0)[0] == -signal.SIGKILL
    assert run_alone(work, str(folder), True, 4, 3)[0] == -signal.SIGKILL
    six_steps(folder, resume=True)
    found = load_file(folder / "links.safetensors")
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_a_checkpoint_that_was_cut_short_is_passed_over_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outer(tmp_path, max_steps=3, save_strategy="steps", save_steps=1).train()
    (tmp_path / "checkpoint-3" / "trainer_state.json").write_text('{"global_st')
    (tmp_path / "damaged-checkpoint-3").mkdir()  # of an earlier crash
    again = outer(tmp_path, max_steps=4, save_strategy="steps", save_steps=1)
    with caplog.at_level(logging.WARNING, "latentmas.training"):
        again.train(resume_from_checkpoint=True)
    assert "checkpoint-3 was cut short" in caplog.text
    assert again.state.global_step == 4
    kept = tmp_path / "damaged-checkpoint-3-1"
    assert (kept / "trainer_state.json").read_text() == '{"global_st'
    assert (kept / "links.safetensors").is_file()
    (tmp_path / "checkpoint-4" / "trainer_state.json").unlink()
    with pytest.raises(lm.DataError, match="was cut short"):
        outer(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))


def test_the_only_checkpoint_stays_when_it_is_damaged(tmp_path: Path) -> None:
    outer(tmp_path, max_steps=1, save_strategy="steps", save_steps=1).train()
    only = tmp_path / "checkpoint-1"
    (only / "trainer_state.json").write_text('{"global_st')
    before = sorted(path.name for path in only.iterdir())
    with pytest.raises(lm.DataError, match=r"checkpoint-1' was cut short .* system.load_links"):
        outer(tmp_path).train(resume_from_checkpoint=True)
    assert sorted(path.name for path in only.iterdir()) == before
    trainer = outer(tmp_path, max_steps=1)
    assert not trainer.system.load_links(only).left  # as the message says


@pytest.mark.parametrize("name", ["optimizer.pt", "scheduler.pt", "rng_state.pth"])
def test_a_checkpoint_that_lacks_a_part_is_not_resumed_from(tmp_path: Path, name: str) -> None:
    outer(tmp_path, max_steps=1, save_strategy="steps", save_steps=1).train()
    (tmp_path / "checkpoint-1" / name).unlink()
    with pytest.raises(lm.WeightsError, match=rf"LM502 .*checkpoint-1' lacks {name}.*load_links"):
        outer(tmp_path, max_steps=2).train(resume_from_checkpoint=True)


# --- several processes --------------------------------------------------------------------------


def trained(folder: Path | str, rounds: int, size: int, source: str) -> lm.System:
    """Three steps over four rows of unequal length, `size` rows for each process."""
    rows = [*ROWS, {"question": "fourth", "answer": "a fourth and rather long answer"}]
    config = lm.OuterConfig(
        str(folder),
        max_steps=3,
        use_cpu=True,
        per_device_train_batch_size=size,
        rounds=rounds,
        learning_rate=1e-3,
        train_links="outer" if rounds > 1 else ["inner.expert", "outer.expert->learner.plan"],
        logging_steps=1,
        probe_stability=False,
    )
    system = pair(lm.Backbone(source), rounds=2).compile().load()
    lm.OuterTrainer(system, config, train_dataset=rows).train()
    return system


def train_on_each_rank(folder: str, source: str) -> None:
    """Two trainings; the first process saves their teams."""
    for rounds in (2, 1):
        system = trained(f"{folder}/{rounds}", rounds, 2, source)
        if dist.get_rank() == 0:
            system.save_pretrained(f"{folder}/{rounds}/team")
        dist.barrier()
    dist.destroy_process_group()


def test_two_processes_give_the_links_of_one(tmp_path: Path) -> None:
    small = tiny("llama", 16).source  # only the first process of several writes model files
    work = "tests.test_training_exactness:train_on_each_rank"
    run_processes(2, work, str(tmp_path / "two"), small)
    for rounds in (2, 1):
        a = trained(tmp_path / "one", rounds, 4, small).link_state()
        b = load_file(tmp_path / "two" / str(rounds) / "team" / "links.safetensors")
        # fp32: the columns that rows have in common, and so the rounding, go with the batch.
        # 1 % of one step of AdamW; `test_a_batch_and_its_halves_have_equal_gradients` is in fp64.
        assert max(float((a[name] - b[name]).abs().max()) for name in a) < 1e-5, rounds
