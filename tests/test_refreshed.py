"""The rollout loop on kept rollouts: states that are made anew after so many steps."""

from __future__ import annotations

import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import latentmas as lm
from latentmas.runtime import executors
from latentmas.testing import TINY_FAMILIES
from latentmas.training import rollout_accuracy
from latentmas.training.data import TrainingRows
from latentmas.training.losses.passes import PassReader
from latentmas.training.losses.regression import mean_square
from latentmas.training.losses.rollout import RolloutLoss
from latentmas.training.losses.teacher_forcing import padded_ids
from latentmas.training.speech import Speech, as_read
from tests.teams import load64, tiny

ROWS = [
    {"question": "3 + 4?", "expert": "three and four", "answer": "seven"},
    {"question": "a longer question", "expert": "x", "answer": "no"},
    {"question": "?", "expert": "who knows it", "answer": "yes or no"},
]
TARGETS = {"expert": "expert", "learner": "answer"}
EVERY = 5


def pair(family: str = "llama", **changes: Any) -> lm.Graph:
    small, wide = tiny(family, 16), tiny(family, 32, seed=1)
    options = {"rounds": 2, "latent_steps": 4, "max_new_tokens": 4} | changes
    graph = lm.templates.distillation(expert=wide, learner=small, **options)
    spec = graph.spec()
    agents = [
        a.model_copy(update={"inner": a.inner.model_copy(update={"kind": "recursive"})})
        for a in spec.agents
    ]
    link = {"kind": "recursive", "options": {}}
    edges = [e.model_copy(update={"link": e.link.model_copy(update=link)}) for e in spec.edges]
    return lm.Graph.from_spec(spec.replace(agents=agents, edges=edges))


def load() -> lm.System:
    system = load64(pair())
    system.requires_grad_(True)
    return system


def refreshed(system: lm.System, **options: Any) -> RolloutLoss:
    """A loss that keeps states of `ROWS`."""
    given = {"rows": TrainingRows(ROWS), "refresh_steps": EVERY} | options
    return RolloutLoss(system, targets=TARGETS, **given).train()


def config(folder: Path, **changes: Any) -> lm.RolloutConfig:
    fields: dict[str, Any] = {"max_steps": 2, "logging_steps": 1, "refresh_steps": EVERY}
    fields |= {"targets": TARGETS, "use_cpu": True, "per_device_train_batch_size": 3}
    return lm.RolloutConfig(output_dir=str(folder), **(fields | changes))


@torch.no_grad()
def shift(system: lm.System, by: float) -> None:
    """Change all links."""
    generator = torch.Generator().manual_seed(0)
    for parameter in system.parameters():
        parameter.add_(torch.randn(parameter.shape, generator=generator).to(parameter), alpha=by)


# --- exactness ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", TINY_FAMILIES)
def test_a_reader_rolls_as_an_executor_does(family: str) -> None:
    system = load64(pair(family))
    speech = Speech(system, TARGETS)
    said = speech.speak(ROWS)
    backbone, inner = system.backbone_of("expert"), system.link("inner.expert")
    ids_BK, real_BK = padded_ids(backbone, [speech.ids("expert", 2, own) for own in said])
    prompt = speech.prompt("expert", 2, ROWS, said)
    reader = PassReader(backbone, prompt, real_BK)
    with torch.no_grad():
        true_BKD = executors.get("reference")().rollout(backbone, inner, prompt, ids_BK.shape[1])
    for _ in range(2):  # what is kept of the prompts is not used up
        rolled_BKD = reader.roll(inner)
        far_BK = (rolled_BKD - true_BKD).abs().amax(dim=2) / true_BKD.abs().max()
        assert far_BK.max() < 1e-5


def by_hand(system: lm.System, row: Any, rolls: lm.System | None) -> Tensor:
    """The summed loss of one row, on rollouts that another team's links make."""
    speech = Speech(system, TARGETS)
    (said,) = speech.speak([row])
    total = torch.zeros((), dtype=torch.float64)
    for agent, number in (("expert", 1), ("learner", 1), ("expert", 2)):
        backbone, inner = system.backbone_of(agent), system.link(f"inner.{agent}")
        prompt = speech.prompt(agent, number, [row], [said])
        ids_K = torch.tensor(speech.ids(agent, number, said))
        with torch.no_grad():
            real_1K = torch.ones(1, len(ids_K), dtype=torch.bool)
            states = [PassReader(backbone, prompt, real_1K).read(backbone.embed(ids_K[None, :-1]))]
            if rolls is not None:
                other = rolls.link(f"inner.{agent}")
                reference = executors.get("reference")()
                states.append(reference.rollout(backbone, other, prompt, len(ids_K)))
        for h_BKD in states:
            x_KD = inner(h_BKD)[0]
            pairs = [(x_KD, backbone.embed(ids_K), mean_square(backbone))]
            for use in speech.uses:
                if (use.edge.source, use.round) == (agent, number):
                    receiver = system.backbone_of(use.edge.target)
                    words_KD = as_read(backbone, receiver, ids_K)
                    pairs.append((system.link(use.link)(x_KD), words_KD, mean_square(receiver)))
            for z_KD, e_KD, size in pairs:
                far = 1 - F.cosine_similarity(z_KD, e_KD, dim=-1)
                far = far + (z_KD - e_KD).square().mean(dim=-1) / size
                total = total + far.sum() / len(states)
    return total


def test_the_loss_is_that_of_words_and_then_also_of_rollouts_by_the_links_of_the_refresh() -> None:
    system, as_they_were = load(), load()
    loss = refreshed(system)
    items = loss.n_items(ROWS)

    def expect(rolls: lm.System | None) -> None:
        found = float(loss(ROWS, [0, 1, 2])["loss"].detach()) * items
        wanted = sum(float(by_hand(system, row, rolls).detach()) for row in ROWS)
        assert found == pytest.approx(wanted, rel=1e-5)

    loss.begin_step(0)
    expect(None)
    loss.begin_step(EVERY)
    shift(system, 0.02)  # links learn on; the rollouts stay those of the refresh
    for step in (EVERY + 1, 2 * EVERY - 1):
        loss.begin_step(step)
        expect(as_they_were)
    loss.begin_step(2 * EVERY)
    expect(system)


def test_gradients_equal_finite_differences() -> None:
    system = load()
    loss = refreshed(system)
    loss.begin_step(EVERY)
    loss(ROWS, [0, 1, 2])["loss"].backward()
    generator = torch.Generator().manual_seed(0)
    for name, parameter in system.named_parameters():
        assert parameter.grad is not None, name
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        values = []
        with torch.no_grad():
            for sign in (1, -1):
                parameter.add_(direction, alpha=sign * 1e-4)
                values.append(float(loss(ROWS, [0, 1, 2])["loss"]))
                parameter.add_(direction, alpha=-sign * 1e-4)
        measured = (values[0] - values[1]) / 2e-4
        expected = float((parameter.grad * direction).sum())
        assert measured == pytest.approx(expected, rel=1e-4, abs=1e-8), name


def test_batches_and_room_change_nothing() -> None:
    system = load()
    kept, anew = refreshed(system), refreshed(system, keep_bytes=0)
    for loss in (kept, anew):
        loss.begin_step(EVERY)
    first = kept(ROWS, [0, 1, 2])["loss"]
    assert torch.equal(first, kept(ROWS, [0, 1, 2])["loss"])
    assert torch.equal(first, anew(ROWS, [0, 1, 2])["loss"])
    alone = sum(
        float(kept([row], [n])["loss"].detach()) * kept.n_items([row]) for n, row in enumerate(ROWS)
    )
    assert alone == pytest.approx(float(first.detach()) * kept.n_items(ROWS), rel=1e-9)


def held_bytes(value: Any) -> int:
    """Bytes of all storages that a value holds, each counted once, as views hold whole ones."""
    found: dict[int, int] = {}

    def walk(value: Any) -> None:
        if isinstance(value, Tensor):
            found[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, dict):
            walk(list(value.values()))
        elif isinstance(value, (list, tuple)):
            for item in value:
                walk(item)
        elif isinstance(value, PassReader):
            walk({k: v for k, v in vars(value).items() if k != "_backbone"})

    walk(value)
    return sum(found.values())


@pytest.mark.parametrize("room", [3_000, 10**9])
def test_what_is_kept_fits_the_room(room: int) -> None:
    """Prompts are long here: a view of their last column would hold all of it."""
    rows = [row | {"question": f"{n} and {'so on ' * 20}"} for n, row in enumerate(ROWS * 20)]
    system = load()
    loss = refreshed(system, rows=TrainingRows(rows), keep_bytes=room)
    states = loss.refreshed
    assert states is not None
    for step in (0, EVERY, 2 * EVERY):
        loss.begin_step(step)
        loss(rows[:40], list(range(40)))
        held = held_bytes([states._read, states._forced, states._rolled])
        assert 0 < held <= room - states._room


def test_rows_beside_the_batch_are_dropped_where_there_is_no_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [row | {"question": f"{n}?"} for n, row in enumerate(ROWS * 20)]
    loss = refreshed(load(), rows=TrainingRows(rows), keep_bytes=0)
    states, made, alive = loss.refreshed, list[Any](), list[int]()
    assert states is not None
    compute = states._compute

    def watched(*given: Any) -> dict[int, Tensor]:
        alive.append(sum(own() is not None for own in made))
        found = compute(*given)
        made[:] = [weakref.ref(h_ND) for h_ND in found.values()]
        return found

    monkeypatch.setattr(states, "_compute", watched)
    loss([rows[0], rows[40]], [0, 40])
    assert len(alive) > 2 and max(alive) <= 2  # of 32 rows: the batch's, and the last


def test_rows_that_are_not_trained_on_are_rolled_by_the_links_as_they_are() -> None:
    system = load()
    loss = refreshed(system).eval()
    loss.begin_step(EVERY)
    shift(system, 0.02)
    found = float(loss(ROWS, None)["loss"].detach()) * loss.n_items(ROWS)
    wanted = sum(float(by_hand(system, row, system).detach()) for row in ROWS)
    assert found == pytest.approx(wanted, rel=1e-5)


# --- training -------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [2, 4, 7])
def test_a_resumed_run_equals_one_that_was_not_interrupted(tmp_path: Path, step: int) -> None:
    """Before the first refresh, at one, and between two."""
    options: dict[str, Any] = {"max_steps": 9, "save_strategy": "steps", "save_steps": 1}
    options |= {"save_total_limit": 9, "refresh_steps": 4, "per_device_train_batch_size": 2}
    plan = pair().compile()
    whole, resumed = plan.load(), plan.load(seed=77)
    first = lm.RolloutTrainer(whole, config(tmp_path, **options), train_dataset=ROWS)
    first.train()
    settings = config(tmp_path / "again", **options)
    again = lm.RolloutTrainer(resumed, settings, train_dataset=ROWS)
    again.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{step}"))
    for name, tensor in whole.link_state().items():
        assert torch.equal(tensor, resumed.link_state()[name]), name


def test_a_checkpoint_with_copies_of_other_links_is_refused(tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_steps": 3, "save_strategy": "steps", "save_steps": 3}
    options |= {"refresh_steps": 2}
    trainer = lm.RolloutTrainer(
        pair().compile().load(), config(tmp_path, **options), train_dataset=ROWS
    )
    trainer.train()
    copies = tmp_path / "checkpoint-3" / "refreshed.safetensors"
    assert copies.exists()
    from safetensors.torch import save_file

    save_file({"inner.expert/x": torch.zeros(1)}, copies)
    for weight in trainer.system.parameters():
        weight.data.zero_()
    with pytest.raises(lm.WeightsError, match=r"refreshed\.safetensors is not of these links"):
        trainer.train(resume_from_checkpoint=True)
    assert not any(weight.any() for weight in trainer.system.parameters())  # no link has changed


def test_a_second_training_begins_without_the_rollouts_of_the_first(tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_steps": 3, "refresh_steps": 2}
    trainer = lm.RolloutTrainer(
        pair().compile().load(), config(tmp_path, **options), train_dataset=ROWS
    )
    trainer.train()
    refreshed = trainer._loss.refreshed
    assert refreshed is not None and refreshed.copies_state()
    refreshed.begin_step(0, trainer._loss.inner_links())
    assert not refreshed.copies_state()


def test_random_links_learn_to_roll(tmp_path: Path) -> None:
    rows = [
        {"question": f"{n} + 1?", "expert": f"it is {n + 1}", "answer": str(n + 1)}
        for n in range(8)
    ]
    system = pair(rounds=1).compile().load()
    before = rollout_accuracy(system, rows, TARGETS)
    settings = config(
        tmp_path, max_steps=150, refresh_steps=30, learning_rate=1e-2, logging_steps=50
    )
    trainer = lm.RolloutTrainer(system, settings, train_dataset=rows)
    trainer.train()
    after = rollout_accuracy(system, rows, TARGETS)
    assert before["nearest_rollout"] < 0.3
    assert after["nearest_rollout"] > 0.9
    logged = [entry for entry in trainer.state.log_history if "loss/pass0" in entry]
    assert ["loss/pass1" in entry for entry in logged] == [True] * len(logged)


def test_arguments_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    system = pair().compile().load()
    for wrong in ({"refresh_steps": 0}, {"mix": 0.5}, {"row_clip": 1.0}):
        with pytest.raises(
            lm.LatentMASError, match=r"refresh_steps is .*without pass_weights, mix"
        ):
            lm.RolloutTrainer(system, config(tmp_path, **wrong), train_dataset=ROWS)
