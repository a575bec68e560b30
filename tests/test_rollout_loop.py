"""The rollout loop: links learn on the states that they bring about themselves, exactly."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import TrainerCallback

import latentmas as lm
from latentmas.engine import executors
from latentmas.generation.sampling import random_stream
from latentmas.testing import TINY_FAMILIES
from latentmas.training import rollout_accuracy
from latentmas.training.losses import rollout as rollout_loss
from latentmas.training.losses.passes import PassReader, parallel_passes
from latentmas.training.losses.regression import mean_square
from latentmas.training.losses.rollout import RolloutLoss
from latentmas.training.losses.soft_targets import SoftTargets
from latentmas.training.losses.teacher_forcing import padded_ids
from latentmas.training.monitoring.drift import _right, warn_of_drift
from latentmas.training.speech import Speech, as_read
from tests.teams import RECURSIVE, load64, tiny

ROWS = [
    {"question": "3 + 4?", "expert": "three and four", "answer": "seven"},
    {"question": "a longer question", "expert": "x", "answer": "no"},
    {"question": "?", "expert": "who knows it", "answer": "yes or no"},
]
TARGETS = {"expert": "expert", "learner": "answer"}


def pair(family: str = "llama", **changes: Any) -> lm.Graph:
    small, wide = tiny(family, 16), tiny(family, 32, seed=1)
    options = {"rounds": 2, "latent_steps": 4, "max_new_tokens": 4, **RECURSIVE} | changes
    return lm.templates.distillation(expert=wide, learner=small, **options)


def load(graph: lm.Graph | None = None) -> lm.System:
    system = load64(graph or pair())
    system.requires_grad_(True)
    return system


def gradients(system: lm.System, rows: Any = ROWS, **options: Any) -> dict[str, Tensor]:
    """Gradients of the summed loss."""
    numbers = options.pop("numbers", None)
    loss = RolloutLoss(system, targets=TARGETS, **options)
    system.zero_grad(set_to_none=True)
    (loss(rows, numbers)["loss"] * loss.n_items(rows)).backward()
    return {n: p.grad.clone() for n, p in system.named_parameters() if p.grad is not None}


def distance(a: dict[str, Tensor], b: dict[str, Tensor]) -> float:
    """Largest difference, over the largest gradient."""
    assert a.keys() == b.keys()
    scale = max(float(grad.abs().max()) for grad in b.values())
    return max(float((a[name] - b[name]).abs().max()) for name in a) / scale


def config(folder: Path, **changes: Any) -> lm.RolloutConfig:
    fields: dict[str, Any] = {"max_steps": 2, "logging_steps": 1, "per_device_train_batch_size": 3}
    fields |= {"targets": TARGETS, "use_cpu": True}
    return lm.RolloutConfig(output_dir=str(folder), **(fields | changes))


def trainer(system: lm.System, folder: Path, **changes: Any) -> lm.RolloutTrainer:
    data = {key: changes.pop(key) for key in ("eval_dataset", "callbacks") if key in changes}
    rows = changes.pop("rows", ROWS)
    return lm.RolloutTrainer(system, config(folder, **changes), train_dataset=rows, **data)


def losses(made: lm.RolloutTrainer) -> list[float]:
    return [entry["loss"] for entry in made.state.log_history if "loss" in entry]


# --- exactness ------------------------------------------------------------------------------------


@pytest.fixture
def exact_norms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Norms in fp64, so that finite differences see the loss itself and not fp32 rounding."""
    from transformers.models.llama import modeling_llama
    from transformers.models.qwen3 import modeling_qwen3

    def norm(self: Any, x: Tensor) -> Tensor:
        size = torch.rsqrt(x.square().mean(-1, keepdim=True) + self.variance_epsilon)
        return self.weight * x * size

    def rotary(self: Any, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        angles = position_ids[..., None].double() * self.inv_freq.double()
        both = torch.cat([angles, angles], dim=-1)
        return both.cos().to(x.dtype), both.sin().to(x.dtype)

    for module, name in ((modeling_llama, "Llama"), (modeling_qwen3, "Qwen3")):
        monkeypatch.setattr(getattr(module, f"{name}RMSNorm"), "forward", norm)
        monkeypatch.setattr(getattr(module, f"{name}RotaryEmbedding"), "forward", rotary)


@pytest.mark.parametrize(
    ("family", "options"),
    [("llama", {}), ("qwen3", {"mix": 0.4}), ("llama", {"soft_temperature": 0.5})],
)
def test_gradients_equal_finite_differences(
    family: str, options: dict[str, Any], exact_norms: None
) -> None:
    """Central differences along random directions of every four parameters, in fp64."""
    system = load(pair(family))
    found = gradients(system, passes=3, **options)
    loss = RolloutLoss(system, targets=TARGETS, passes=3, **options)
    items = loss.n_items(ROWS)
    generator = torch.Generator().manual_seed(0)
    named = list(system.named_parameters())
    for group in (named[start : start + 4] for start in range(0, len(named), 4)):
        directions, values, expected = list[Tensor](), list[float](), 0.0
        for name, parameter in group:
            direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            directions.append(direction / direction.norm())
            expected += float((found[name] * directions[-1]).sum())
        with torch.no_grad():
            for sign in (1, -1):
                for (_, parameter), direction in zip(group, directions, strict=True):
                    parameter.add_(direction, alpha=sign * 1e-4)
                values.append(float(loss(ROWS)["loss"]) * items)
                for (_, parameter), direction in zip(group, directions, strict=True):
                    parameter.add_(direction, alpha=-sign * 1e-4)
        measured = (values[0] - values[1]) / 2e-4
        assert measured == pytest.approx(expected, rel=1e-4, abs=1e-7), [name for name, _ in group]


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_each_pass_makes_one_more_state_that_of_the_rollout(family: str) -> None:
    """After K - 1 passes all of them are; before, those that follow are not."""
    system = load(pair(family))
    speech = Speech(system, TARGETS)
    said = speech.speak(ROWS)
    backbone, inner = system.backbone_of("expert"), system.link("inner.expert")
    ids_BK, real_BK = padded_ids(backbone, [speech.ids("expert", 2, own) for own in said])
    prompt = speech.prompt("expert", 2, ROWS, said)
    assert prompt.padded
    reader = PassReader(backbone, prompt, real_BK)
    gold_BJD = backbone.embed(ids_BK[:, :-1])
    with torch.no_grad():
        true_BKD = executors.get("cached")().rollout(backbone, inner, prompt, 4)
        found = list(parallel_passes(reader, inner, gold_BJD, 4, lambda number, x: x))
    for number, (h_BKD, _) in enumerate(found):
        far_K = (h_BKD - true_BKD).abs().amax(dim=(0, 2)) / true_BKD.abs().max()
        exact = min(number + 1, 4)
        assert far_K[:exact].max() < 1e-5
        assert exact == 4 or far_K[exact] > 1e-3


def by_hand(system: lm.System, row: Any, passes: int, *, detach: bool) -> Tensor:
    """The summed loss of one row, reading everything again in each pass."""
    speech = Speech(system, TARGETS)
    (said,) = speech.speak([row])
    total = torch.zeros((), dtype=torch.float64)
    for agent, number in (("expert", 1), ("learner", 1), ("expert", 2)):
        backbone, inner = system.backbone_of(agent), system.link(f"inner.{agent}")
        prompt = speech.prompt(agent, number, [row], [said])
        ids_K = torch.tensor(speech.ids(agent, number, said))
        uses = [use for use in speech.uses if (use.edge.source, use.round) == (agent, number)]
        fed_1JD = backbone.embed(ids_K)[None, :-1]
        for _ in range(passes + 1):
            x = torch.cat([prompt.x_BTD, fed_1JD], dim=1)
            places = torch.arange(x.shape[1])[None]
            h_KD = backbone.step(x, places, torch.ones_like(places))[0, -len(ids_K) :]
            z_KD = inner(h_KD)
            pairs = [(z_KD, backbone.embed(ids_K), backbone)]
            for use in uses:
                receiver = system.backbone_of(use.edge.target)
                message_KD = system.link(use.link)(z_KD)
                pairs.append((message_KD, as_read(backbone, receiver, ids_K), receiver))
            for made, wanted, reader in pairs:
                cosine = (1 - F.cosine_similarity(made, wanted, dim=-1)).sum()
                square = (made - wanted).square().mean(dim=-1).sum() / mean_square(reader)
                total = total + (cosine + square) / (passes + 1)
            fed_1JD = (z_KD.detach() if detach else z_KD)[None, :-1]
    return total


@pytest.mark.parametrize("detach", [False, True])
def test_the_loss_and_its_gradient_by_hand(detach: bool) -> None:
    """Without `gradient`, passes are cut from each other and nothing else changes."""
    system = load()
    found = gradients(system, ROWS[:1], passes=2, gradient=not detach)
    system.zero_grad(set_to_none=True)
    total = by_hand(system, ROWS[0], 2, detach=detach)
    total.backward()
    wanted = {n: p.grad for n, p in system.named_parameters() if p.grad is not None}
    loss = RolloutLoss(system, targets=TARGETS, passes=2, gradient=not detach)
    value = float(loss(ROWS[:1])["loss"].detach()) * loss.n_items(ROWS[:1])
    assert value == pytest.approx(float(total.detach()), rel=1e-6)
    assert distance(found, wanted) < 1e-4
    other = gradients(system, ROWS[:1], passes=2, gradient=detach)
    assert distance(found, other) > 1e-2


@pytest.mark.parametrize(
    "options",
    [{}, {"gradient": False}, {"mix": 0.5}, {"row_clip": 0.5}, {"soft_temperature": 0.5}],
)
def test_a_batch_equals_its_rows(options: dict[str, Any]) -> None:
    """Prompts and texts of unequal lengths; draws and clipping belong to rows."""
    system = load()
    together = gradients(system, numbers=[4, 5, 6], **options)
    alone = [
        gradients(system, [r], numbers=[n], **options) for r, n in zip(ROWS, (4, 5, 6), strict=True)
    ]
    summed = {name: sum(own[name] for own in alone) for name in together}
    assert distance(together, summed) < 1e-6


def test_texts_shorter_than_k_without_a_turn_end_equal_their_rows(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system = load()
    for name in ("expert", "learner"):
        monkeypatch.setitem(system.backbone_of(name).__dict__, "turn_end_id", None)
    together = gradients(system)
    alone = [gradients(system, [row]) for row in ROWS]
    assert distance(together, {n: sum(own[n] for own in alone) for n in together}) < 1e-6
    loss = RolloutLoss(system, targets=TARGETS)
    silent = [{**row, "expert": "", "answer": ""} for row in ROWS]
    assert loss.n_items(silent) == 0
    value = loss(silent)["loss"]
    value.backward()
    assert float(value.detach()) == 0.0
    assert loss.n_items(ROWS[1:2]) == 2 * (1 + 2 + 1)  # "x", "no", "x": two links each


def test_row_clip_bounds_what_passes_send_back() -> None:
    system = load()
    free = gradients(system)
    assert distance(gradients(system, row_clip=1e6), free) < 1e-9
    cut = gradients(system, gradient=False)
    assert distance(gradients(system, row_clip=1e-6), cut) < 1e-4
    some = gradients(system, row_clip=0.3)
    assert min(distance(some, free), distance(some, cut)) > 1e-3
    divided = RolloutLoss(system, targets=TARGETS, row_clip=0.3)
    system.zero_grad(set_to_none=True)
    divided(ROWS, num_items_in_batch=torch.tensor(1000))["loss"].backward()
    found = {n: p.grad * 1000 for n, p in system.named_parameters() if p.grad is not None}
    assert distance(found, some) < 1e-6  # the same bound, whatever the loss is divided by


def test_mix_draws_words_by_seed_step_and_row_in_training_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    system, drawn = load(), list[str]()
    loss = RolloutLoss(system, targets=TARGETS, mix=0.5)

    def recorded(name: str) -> torch.Generator:
        drawn.append(name)
        return random_stream(name)

    monkeypatch.setattr(rollout_loss, "random_stream", recorded)

    def value(**changes: Any) -> float:
        for name, own in changes.items():
            setattr(loss, name, own)
        with torch.no_grad():
            return float(loss(ROWS, [0, 1, 2])["loss"])

    first = value()
    assert len(set(drawn)) == len(drawn) == 3 * 3 * 3  # each row, turn and pass draws anew
    assert first == value()
    assert first != value(step=1)
    assert first == value(step=0)
    assert first != value(seed=1)
    plain = RolloutLoss(system, targets=TARGETS)
    forced = RolloutLoss(system, targets=TARGETS, passes=0)
    with torch.no_grad():
        assert value(mix=1.0) == pytest.approx(float(forced(ROWS)["loss"]), rel=1e-9)
        loss.eval()
        assert value(mix=0.5) == pytest.approx(float(plain(ROWS)["loss"]), rel=1e-12)


def test_pass_weights_are_relative() -> None:
    system = load()

    def value(passes: int, weights: list[float] | None) -> float:
        loss = RolloutLoss(system, targets=TARGETS, passes=passes, pass_weights=weights)
        with torch.no_grad():
            return float(loss(ROWS)["loss"])

    forced, both = value(0, None), value(1, None)
    first = 2 * both - forced
    assert value(1, [3.0, 1.0, 9.0]) == pytest.approx((3 * forced + first) / 4, rel=1e-9)


def test_soft_targets_are_the_soft_tokens_of_forced_states() -> None:
    """A link that makes just these has nothing to learn in the first pass."""
    system = load(soft())
    found = {
        temperature: float(
            RolloutLoss(system, targets=TARGETS, passes=0, soft_temperature=temperature)(ROWS)[
                "loss"
            ].detach()
        )
        for temperature in (0.5, 2.0)
    }
    assert found[0.5] == pytest.approx(0.0, abs=1e-9)  # the temperature of the links
    assert found[2.0] > 1e-3


def test_soft_targets_stay_those_of_the_forced_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []
    plain = SoftTargets.__call__

    def counted(self: SoftTargets, sender: str, reader: str, h_ND: Tensor) -> Tensor:
        asked.append((sender, reader))
        return plain(self, sender, reader, h_ND)

    monkeypatch.setattr(SoftTargets, "__call__", counted)
    RolloutLoss(load(), targets=TARGETS, passes=3, soft_temperature=0.5)(ROWS)
    turns = [("expert", "learner"), ("learner", "expert"), ("expert", "learner")]
    assert asked == [pair for one, other in turns for pair in ((one, one), (one, other))]


def soft(temperature: float = 0.5) -> lm.Graph:
    """All links of the kind `soft_token`, without weights."""
    spec = pair().spec()

    def changed(link: Any) -> Any:
        return link.model_copy(
            update={
                "kind": "soft_token",
                "options": {"temperature": temperature, "residual": False},
            }
        )

    return lm.Graph.from_spec(
        spec.replace(
            agents=[a.model_copy(update={"inner": changed(a.inner)}) for a in spec.agents],
            edges=[e.model_copy(update={"link": changed(e.link)}) for e in spec.edges],
        )
    )


# --- the trainer ----------------------------------------------------------------------------------


def test_it_trains_inner_and_outer_links_and_lowers_the_loss(tmp_path: Path) -> None:
    system = pair().compile().load()
    before = {name: tensor.clone() for name, tensor in system.link_state().items()}
    made = trainer(system, tmp_path, max_steps=30, warmup_steps=0, learning_rate=1e-2)
    made.train()
    changed = {
        n.rpartition(".")[0] for n, t in system.link_state().items() if t.ne(before[n]).any()
    }
    assert {name.split(".")[0] for name in changed} == {"inner", "outer"}
    assert losses(made)[-1] < 0.6 * losses(made)[0]
    assert system.history[-1].loop == "rollout"


def test_messages_say_more_of_the_right_words_after_real_rollouts(tmp_path: Path) -> None:
    """What the edge loop alone does not reach, from the same start."""
    found = {}
    for kind in ("Edge", "Rollout"):
        system = pair(rounds=1, latent_steps=6).compile().load()
        fields: dict[str, Any] = {"max_steps": 150, "per_device_train_batch_size": 3}
        fields |= {"use_cpu": True, "targets": TARGETS, "learning_rate": 1e-2, "warmup_steps": 5}
        made = getattr(lm, f"{kind}Config")(str(tmp_path / kind), train_links="all", **fields)
        getattr(lm, f"{kind}Trainer")(system, made, train_dataset=ROWS).train()
        found[kind] = rollout_accuracy(system, ROWS, TARGETS)
    assert found["Rollout"]["nearest_rollout"] > found["Edge"]["nearest_rollout"] + 0.1
    assert found["Rollout"]["nearest_rollout"] > 0.8


def test_without_texts_the_twin_speaks(tmp_path: Path) -> None:
    system = pair().compile().load()
    made = trainer(system, tmp_path, targets=None, eval_dataset=ROWS)
    made.train()
    assert made.evaluate()["eval_loss"] > 0
    with pytest.raises(lm.DataError, match="lacks the field 'plan'"):
        trainer(system, tmp_path, targets={"expert": "plan"})


@pytest.mark.parametrize("options", [{}, {"mix": 0.3, "row_clip": 0.5}])
def test_accumulation_equals_one_batch(tmp_path: Path, options: dict[str, Any]) -> None:
    links = []
    for size, pieces in ((3, 1), (1, 3)):
        system = pair().compile().load()
        sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": pieces}
        trainer(system, tmp_path / str(size), max_steps=3, **sizes, **options).train()
        links.append(system.link_state())
    assert max(float((links[1][n] - links[0][n]).abs().max()) for n in links[0]) < 2e-5


def test_a_resumed_run_equals_one_that_was_not_interrupted(tmp_path: Path) -> None:
    """In the middle of the curriculum, with draws of `mix`."""
    options: dict[str, Any] = {
        "max_steps": 6,
        "save_strategy": "steps",
        "save_steps": 2,
        "save_total_limit": 3,
        "per_device_train_batch_size": 2,
        "mix": 0.5,
        "row_clip": 0.5,
        "targets": None,
    }
    plan = pair().compile()
    whole, resumed = plan.load(), plan.load(seed=77)
    first = trainer(whole, tmp_path, **options)
    first.train()
    again = trainer(resumed, tmp_path / "again", **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    for name, tensor in whole.link_state().items():
        assert torch.equal(tensor, resumed.link_state()[name]), name
    assert losses(again)[-4:] == losses(first)[-4:]


def test_passes_grow_in_equal_parts(tmp_path: Path) -> None:
    seen: list[int] = []

    class Passes(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **options: Any) -> None:
            seen.append(options["model"].passes)
            assert options["model"].step == state.global_step - 1

    evaluating = {"eval_strategy": "steps", "eval_steps": 1, "eval_dataset": ROWS}
    made = trainer(
        pair().compile().load(), tmp_path, max_steps=6, callbacks=[Passes()], **evaluating
    )
    made.train()
    assert seen == [1, 1, 2, 2, 3, 3]  # of the four by default, K - 1 do all
    logged = [entry for entry in made.state.log_history if "loss" in entry]
    assert "loss/pass1" in logged[0] and "loss/pass2" not in logged[0]
    assert logged[0]["loss"] == pytest.approx(
        (logged[0]["loss/pass0"] + logged[0]["loss/pass1"]) / 2, rel=1e-5
    )
    assert logged[-1]["latent_norm/expert"] > 0 and logged[-1]["grad_norm/inner.expert"] > 0


def test_one_latent_step_has_nothing_to_drift(tmp_path: Path) -> None:
    made = trainer(pair(latent_steps=1).compile().load(), tmp_path)
    made.train()
    assert made.passes == 0 and losses(made)[0] > 0


def test_the_evaluation_does_not_depend_on_the_batch_size(tmp_path: Path) -> None:
    system, found = pair().compile().load(), []
    for size in (3, 2, 1):
        options = {"eval_dataset": ROWS, "per_device_eval_batch_size": size}
        found.append(trainer(system, tmp_path, **options).evaluate())
    names = ["eval_loss", "eval_nearest_rollout", "eval_nearest_forced", "eval_message_cosine"]
    for name in names:
        assert [own[name] for own in found] == pytest.approx([found[0][name]] * 3, rel=1e-4), name
    none = trainer(system, tmp_path, eval_dataset=ROWS, rollout_rows=0).evaluate()
    assert not [name for name in none if "nearest" in name]


def test_graphs_and_arguments_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    texts = pair().as_text().compile().load()
    with pytest.raises(lm.LatentMASError, match=r"LM402: no agent of graph .* sends latents"):
        trainer(texts, tmp_path)
    bare = load(soft())
    with pytest.raises(lm.LatentMASError, match="LM402: train_links='outer' leaves nothing"):
        trainer(bare, tmp_path, train_links="outer")
    system = pair().compile().load()
    for wrong, told in (
        ({"passes": 0}, "passes is 0; it takes a whole number of 1 or more"),
        ({"pass_weights": [1.0, 1.0]}, r"passes \+ 1 = 5 positive numbers"),
        ({"pass_weights": [0.0, 1.0, 1.0, 1.0, 1.0]}, "positive numbers"),
        ({"mix": 1.5}, "mix is 1.5; it takes a probability"),
        ({"row_clip": 0.0}, "row_clip is 0.0; it takes a positive number"),
        ({"teacher": "words"}, "teacher is 'words'; it takes one of text, soft_token"),
        ({"teacher_temperature": 0.0}, "teacher_temperature is 0.0"),
        ({"rollout_rows": -1}, "rollout_rows is -1"),
    ):
        with pytest.raises(lm.LatentMASError, match=told):
            trainer(system, tmp_path, **wrong)
    with pytest.raises(TypeError, match="RolloutConfig, not EdgeConfig"):
        lm.RolloutTrainer(system, lm.EdgeConfig(str(tmp_path)), train_dataset=ROWS)  # type: ignore[arg-type]


def test_text_edges_and_sources_are_read_but_not_learnt(tmp_path: Path) -> None:
    graph = lm.Graph("mixed", inputs=["question"], rounds=1, latent_steps=3)
    small, wide = tiny("llama", 16), tiny("qwen3", 32, seed=1)
    graph.add_text_source("notes", lambda row: f"note on {row['question']}")
    graph.add_agent("writer", small, prompt="{{ question }}", max_new_tokens=3)
    graph.add_agent("thinker", wide, prompt="{{ notes }} {{ writer }} {{ question }}")
    graph.add_agent("last", small, prompt="{{ thinker }} {{ question }}", max_new_tokens=3)
    graph.connect("notes", "thinker")
    graph.connect("writer", "thinker", link="text")
    graph.connect("thinker", "last")
    system = graph.output("last").compile().load()
    made = trainer(system, tmp_path, targets=None, teacher="soft_token")
    made.train()
    loss: Any = made.model
    assert [turn.agent for turn in loss.turns] == ["thinker"]
    (said,) = loss.speech.speak(ROWS[:1])
    assert said["writer", 1]
    scope = loss.speech._scope("thinker", 1, ROWS[0], said)
    assert scope["notes"] == "note on 3 + 4?" and scope["writer"] == said["writer", 1]


# --- the accuracy of rollouts ---------------------------------------------------------------------


def test_rollout_accuracy_by_hand() -> None:
    """From a run's own states, one row at a time."""
    system = load(pair(rounds=1))
    trained = RolloutLoss(system, targets=TARGETS)
    optimizer = torch.optim.Adam(system.parameters(), lr=0.02)
    for _ in range(25):
        optimizer.zero_grad()
        trained(ROWS)["loss"].backward()
        optimizer.step()
    table_VD = system.backbone_of("learner").model.get_input_embeddings().weight.detach()
    right, messages = 0, []
    run = system.run(ROWS, record=("messages",)).messages["round1.expert->learner"]
    for row, message_KD in zip(ROWS, run, strict=True):
        speech = Speech(system, TARGETS)
        (said,) = speech.speak([row])
        ids = torch.tensor(speech.ids("expert", 1, said))
        near_K = F.cosine_similarity(message_KD[:, None], table_VD[None], dim=-1).argmax(dim=-1)
        right += int((near_K == ids).sum())
        messages.append(F.normalize(message_KD, dim=-1))
    found = rollout_accuracy(system, ROWS, TARGETS, batch_size=2)
    assert 0 < right < 12
    assert found["nearest_rollout"] == pytest.approx(right / 12)
    pairs = [(i, j) for i in range(3) for j in range(3) if i != j]
    alike = sum(float((messages[i] * messages[j]).sum(-1).mean()) for i, j in pairs) / len(pairs)
    assert found["message_cosine"] == pytest.approx(alike, rel=1e-5)


def test_links_through_the_vocabulary_do_not_drift(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a low temperature a soft token is the likeliest word, forced and rolled out alike."""
    graph = lm.Graph("line", inputs=["question"], rounds=1, latent_steps=4)
    cold = {"kind": "soft_token", "options": {"temperature": 1e-4}}
    graph.add_agent("one", tiny("llama", 16), prompt="{{ question }}", inner=cold)
    graph.add_agent("two", tiny("llama", 16), prompt="{{ one }} {{ question }}")
    graph.connect("one", "two", link="soft_token", temperature=1e-4)
    system = graph.output("two").compile().load()
    states = system.run(ROWS, record=("states",)).states["round1.one"]
    likeliest_BK = system.backbone_of("one").logits(states).argmax(dim=-1).tolist()
    wrong_BK = [[(token + 1) % 64 for token in own] for own in likeliest_BK]
    texts = {}
    monkeypatch.setattr(Speech, "speak", lambda self, rows, numbers: texts["ids"])
    monkeypatch.setattr(Speech, "ids", lambda self, agent, round, text_messages: text_messages)
    monkeypatch.setattr(Speech, "_scope", lambda self, agent, round, row, text_messages: row)
    for texts["ids"], share in ((likeliest_BK, 1.0), (wrong_BK, 0.0)):
        found = rollout_accuracy(system, ROWS)
        assert found["nearest_rollout"] == share
        assert share == 0.0 or found["nearest_forced"] == share
    texts["ids"] = likeliest_BK
    found = rollout_accuracy(system, ROWS)
    assert found["message_cosine"] == pytest.approx(found["word_cosine"], abs=1e-5)


def test_a_row_is_right_where_nothing_is_nearer_than_its_word() -> None:
    """A word of two tokens is their mean, which no row of the table equals."""
    receiver = load().backbone_of("learner")
    one, two, other = receiver.embed(torch.tensor([[5], [9], [17]]))
    words_ND = torch.cat([one, two, (one + two) / 2, one])
    messages_ND = torch.cat([3 * one, other, (one + two) / 2, one + 0.01 * two])
    assert _right(messages_ND, words_ND, receiver).tolist() == [True, False, True, True]


def test_drift_and_collapse_are_told(caplog: pytest.LogCaptureFixture) -> None:
    plan = pair().compile()

    def told(**found: float) -> str:
        caplog.clear()
        with caplog.at_level(logging.WARNING, "latentmas"):
            warn_of_drift(found, plan)
        return caplog.text

    assert "in 98 % of rows" in told(nearest_forced=0.98, nearest_rollout=0.4)
    assert told(nearest_forced=0.6, nearest_rollout=0.41) == ""
    assert "mean cosine of 0.97" in told(message_cosine=0.97, word_cosine=0.3)
    assert told(message_cosine=0.97, word_cosine=0.96) == ""  # the rows' words are alike too
    assert told() == ""
