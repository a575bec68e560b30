"""Training reads the same walk: its gradients are exact, and go to links alone."""

from __future__ import annotations

import pytest
import torch

from latentmas.training.losses.outer import OuterLoss
from tests.teams import exact_norms, load64, of_template, sequential

ROWS = [{"question": "3 + 4?", "answer": "7"}, {"question": "a longer question", "answer": "no"}]


@pytest.fixture(autouse=True)
def _exact_norms(monkeypatch):
    exact_norms(monkeypatch)


def gradients(system, **options):
    loss = OuterLoss(system, system.plan, **options)
    system.requires_grad_(True)
    system.zero_grad()
    value = loss(ROWS)["loss"]
    value.backward()
    return loss, {
        name: p.grad.clone() for name, p in system.named_parameters() if p.grad is not None
    }


@pytest.mark.parametrize("executor", ["cached", "reference"])
def test_gradients_equal_finite_differences(executor):
    """Central differences along random directions of every parameter, in fp64."""
    system = load64(sequential(rounds=2, latent_steps=2))
    loss, found = gradients(system, executor=executor)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in system.named_parameters():
        direction = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        direction /= direction.norm()
        values = []
        with torch.no_grad():
            for sign in (1, -1):
                parameter.add_(direction, alpha=sign * 1e-4)
                values.append(float(loss(ROWS)["loss"]))
                parameter.add_(direction, alpha=-sign * 1e-4)
        measured = (values[0] - values[1]) / 2e-4
        expected = float((found[name] * direction).sum())
        assert measured == pytest.approx(expected, rel=1e-4, abs=1e-8), name


def test_cached_and_recomputed_gradients_agree():
    system = load64(sequential())
    _, cached = gradients(system)
    _, plain = gradients(system, executor="reference")
    assert cached.keys() == plain.keys()
    for name in cached:
        assert torch.allclose(cached[name], plain[name], rtol=1e-8, atol=1e-12), name


@pytest.mark.parametrize("template", ["sequential", "mixture", "distillation", "deliberation"])
def test_every_link_that_the_plan_calls_differentiable_gets_a_gradient(template):
    system = load64(of_template(template, "llama"))
    gradients(system)
    reached = {link.id for link in system.plan.links if link.differentiable}
    assert reached == set(system.link_ids())
    for id in reached:
        for name, parameter in system.link(id).named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, f"{id}.{name}"
    for backbone in system.agent_backbones.values():
        assert all(p.grad is None and not p.requires_grad for p in backbone.model.parameters())


def test_text_edges_cut_the_gradient():
    graph = sequential()
    edges = list(graph.spec().edges)
    edges[1] = edges[1].model_copy(
        update={"link": edges[1].link.model_copy(update={"kind": "text"})}
    )
    system = load64(graph.replace(edges=edges))
    system.requires_grad_(True)
    assert not any(link.differentiable for link in system.plan.links)
    loss = OuterLoss(system, system.plan)(ROWS)["loss"]
    assert not loss.requires_grad


def test_no_answer_reaches_a_context_before_the_loss():
    """Messages are the same whatever the answer is: the loss is on-policy."""
    system = load64(sequential())
    seen = []

    def losses(answer):
        rows = [{**row, "answer": answer} for row in ROWS]
        loss = OuterLoss(system, system.plan)
        states = []
        handle = system.link("outer.critic->solver.plan").register_forward_hook(
            lambda _m, _i, out: states.append(out.detach().clone())
        )
        loss(rows)
        handle.remove()
        seen.append(torch.stack(states))

    losses("yes")
    losses("entirely different")
    assert torch.equal(seen[0], seen[1])


def test_loss_is_the_cross_entropy_of_the_answer():
    """Against a plain computation: the prompt, the answer appended, the whole model, its loss."""
    system = load64(sequential(rounds=1))
    row = ROWS[1]
    loss = float(OuterLoss(system, system.plan)([row])["loss"].detach())
    caught = {}
    from latentmas.engine import executors
    from latentmas.runtime import Interpreter, Sampling

    Interpreter(
        team=system, plan=system.plan, executor=executors.get("reference")(), sampling=Sampling()
    ).walk([row], finish=lambda turn: caught.update(turn=turn))
    turn = caught["turn"]
    tokenizer, model = turn.backbone.tokenizer, turn.backbone.model
    ids = [*tokenizer(row["answer"], add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    x = torch.cat([turn.prompt.x_BTD, turn.backbone.embed(torch.tensor([ids]))], dim=1)
    labels = torch.tensor([[-100] * turn.prompt.x_BTD.shape[1] + ids])
    whole = model(inputs_embeds=x.detach(), labels=labels)
    assert loss == pytest.approx(float(whole.loss), rel=1e-6)
