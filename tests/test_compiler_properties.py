"""Laws that every plan obeys, on random graphs; the schedule against a naive evaluation."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from latentmas.compiler import compile_graph
from latentmas.errors import GraphError
from latentmas.plan import Decode, LinkPlan, Plan, Rollout, Transfer
from latentmas.spec import GraphSpec
from tests.strategies import Facts, valid_graphs

some = settings(
    max_examples=50,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
many = settings(some, max_examples=200)


class Naive:
    """The value of every agent in every round, straight from the definition, by recursion.

    Values are symbols: equal terms get one number, so that comparing is cheap.
    """

    def __init__(self, graph: GraphSpec) -> None:
        self.graph, self.terms, self.memo = graph, dict[Hashable, int](), dict[Hashable, int]()
        self.links: set[str] = set()
        """Links on a path of latents to the last `decode` asked for with `track`."""

    def term(self, *parts: Hashable) -> int:
        return self.terms.setdefault(parts, len(self.terms))

    def inputs(self, agent: str, round: int, track: bool) -> tuple[tuple[str | None, int], ...]:
        found = []
        for edge in self.graph.edges:
            if edge.target != agent or round - edge.delay < 1:
                continue
            if edge.source in {source.name for source in self.graph.text_sources}:
                value = self.term("source", edge.source)
            elif edge.link.kind == "text":
                value = self.decode(edge.source, round - edge.delay, track=False)
            else:
                outer = f"shared.{edge.link.share}" if edge.link.share else f"outer.{edge.id}"
                reads_states = edge.link.kind == "soft_token"  # outer(h), not outer(inner(h))
                used = {outer} if reads_states else {outer, self.inner(edge.source)}
                self.links |= used if track else set()
                states = self.states(edge.source, round - edge.delay, track)
                value = self.term("message", edge.id, outer, self.inner(edge.source), states)
            found.append((edge.slot, value))
        return tuple(sorted(found))

    def inner(self, agent: str) -> str:
        share = self.graph.agent(agent).inner.share
        return f"shared.{share}" if share else f"inner.{agent}"

    def states(self, agent: str, round: int, track: bool) -> int:
        fed_back = self.graph.steps_of(self.graph.agent(agent)) >= 2
        self.links |= {self.inner(agent)} if track and fed_back else set()
        if ("states", agent, round, track) not in self.memo:
            steps, inputs = (
                self.graph.steps_of(self.graph.agent(agent)),
                self.inputs(agent, round, track),
            )
            term = self.term("states", agent, round, self.inner(agent), steps, inputs)
            self.memo["states", agent, round, track] = term
        return self.memo["states", agent, round, track]

    def decode(self, agent: str, round: int, track: bool = True) -> int:
        if ("text", agent, round, track) not in self.memo:
            limit, inputs = self.graph.agent(agent).max_new_tokens, self.inputs(agent, round, track)
            self.memo["text", agent, round, track] = self.term("text", agent, round, limit, inputs)
        return self.memo["text", agent, round, track]


def walk(plan: Plan, naive: Naive) -> list[int]:
    """The symbols that a plan's steps make, in order; a KeyError is a use before making."""
    values = {source.name: naive.term("source", source.name) for source in plan.graph.text_sources}
    made = []
    for step in plan.steps:
        if isinstance(step, Transfer):
            term = naive.term("message", step.edge, step.outer, step.inner, values[step.source])
        else:
            inputs = tuple(sorted((slot, values[name]) for slot, name in step.inputs.items()))
            if isinstance(step, Rollout):
                parts: tuple[Any, ...] = (
                    "states",
                    step.agent,
                    step.round,
                    step.inner,
                    step.latent_steps,
                )
            else:
                parts = ("text", step.agent, step.round, step.max_new_tokens)
            term = naive.term(*parts, inputs)
        assert step.output not in values, f"{step.output} is made twice"
        values[step.output] = term
        made.append(term)
    return made


@many
@given(valid_graphs())
def test_schedule_equals_naive_evaluation(pair: tuple[GraphSpec, Facts]) -> None:
    plan = compile_graph(pair[0], facts=pair[1])
    naive = Naive(plan.graph)
    answer = naive.decode(plan.output, plan.graph.rounds)
    needed = {i for parts, i in naive.terms.items() if parts[0] != "source"}
    made = walk(plan, naive)
    assert made[-1] == answer
    assert sorted(made) == sorted(needed), "the steps are just what the answer needs, each once"


@some
@given(valid_graphs())
def test_steps_are_live_and_end_in_the_one_answer(pair: tuple[GraphSpec, Facts]) -> None:
    plan = compile_graph(pair[0], facts=pair[1])
    made = {source.name for source in plan.graph.text_sources}
    for step in plan.steps:
        assert set(step.reads) <= made, "made before it is used"
        made.add(step.output)
    used = {name for step in plan.steps for name in step.reads}
    assert all(step.output in used for step in plan.steps[:-1]), "no dead step"
    finals = [step for step in plan.steps if isinstance(step, Decode) and step.final]
    assert finals == [plan.steps[-1]]
    assert (finals[0].agent, finals[0].round) == (plan.output, plan.graph.rounds)
    text_messages = {edge.source for edge in plan.graph.edges if edge.link.kind == "text"}
    between = [step for step in plan.steps[:-1] if isinstance(step, Decode)]
    assert all(step.agent in text_messages for step in between), (
        "only sources of text edges speak in between"
    )
    assert [step.round for step in plan.steps] == sorted(step.round for step in plan.steps)


@some
@given(valid_graphs())
def test_json_round_trips_are_exact(
    tmp_path_factory: pytest.TempPathFactory, pair: tuple[GraphSpec, Facts]
) -> None:
    spec, facts = pair
    folder = tmp_path_factory.getbasetemp()
    copies = [GraphSpec.from_json(spec.to_json()), GraphSpec.from_json(spec.to_json(indent=None))]
    copies += [GraphSpec.load(spec.save(folder / name)) for name in ("graph.yaml", "graph.json")]
    for copy in copies:
        assert copy == spec
        assert copy.fingerprint == spec.fingerprint
    plan = compile_graph(spec, facts=facts)
    again = Plan.from_json(plan.to_json())
    assert again == plan
    assert again.digest == plan.digest
    assert again.to_json() == plan.to_json()


@some
@given(valid_graphs(), st.permutations("pqrstu"))
def test_names_of_agents_do_not_matter(pair: tuple[GraphSpec, Facts], letters: list[str]) -> None:
    plan = compile_graph(pair[0], facts=pair[1])
    new = {
        agent.name: f"{letter}98{letter}"
        for agent, letter in zip(plan.graph.agents, letters, strict=False)
    }
    renamed = plan.graph.replace(
        agents=[agent.model_copy(update={"name": new[agent.name]}) for agent in plan.graph.agents],
        edges=[
            edge.model_copy(
                update={"source": new.get(edge.source, edge.source), "target": new[edge.target]}
            )
            for edge in plan.graph.edges
        ],
        output=[new[plan.output]],
    )
    text = compile_graph(renamed, facts=pair[1]).to_json()
    for old, other in new.items():
        text = text.replace(other, old)
    assert text == plan.to_json()


@some
@given(valid_graphs(), st.integers(1, 6))
def test_compiling_is_deterministic_and_rounds_can_change_later(
    pair: tuple[GraphSpec, Facts], rounds: int
) -> None:
    spec, facts = pair
    plan = compile_graph(spec, facts=facts)
    assert compile_graph(spec, facts=facts) == plan
    resolved = compile_graph(plan.graph, facts={key: b.info for key, b in plan.backbones.items()})
    assert resolved == plan, "compiling what was compiled changes nothing"
    try:
        other = compile_graph(spec.replace(rounds=rounds), facts=facts)
    except GraphError:
        return
    assert plan.replace(rounds=rounds) == other
    assert plan.replace(rounds=rounds).replace(rounds=spec.rounds) == plan


@some
@given(valid_graphs())
def test_groups_are_independent_and_gradients_reach_what_they_say(
    pair: tuple[GraphSpec, Facts],
) -> None:
    plan = compile_graph(pair[0], facts=pair[1])
    after = {agent.name: {agent.name} for agent in plan.graph.agents}
    for _ in plan.graph.agents:
        for edge in plan.graph.edges:
            if edge.source in after and not edge.delay:
                after[edge.source] |= after[edge.target]
    turns = plan.turns()
    for a in turns:
        for b in turns:
            if (a.round, a.group) == (b.round, b.group) and a.agent != b.agent:
                assert b.agent not in after[a.agent], "a path joins two agents of one group"
    naive = Naive(plan.graph)
    naive.decode(plan.output, plan.graph.rounds)
    assert {link.id for link in plan.links if link.differentiable} == naive.links


@some
@given(valid_graphs())
def test_links_have_the_sizes_of_their_formulas(pair: tuple[GraphSpec, Facts]) -> None:
    plan = compile_graph(pair[0], facts=pair[1])
    for link in plan.links:
        assert link.n_parameters == parameters(link), link
    latent = [edge for edge in plan.graph.edges if edge.link.kind != "text"]
    users = [user for link in plan.links for user in link.users]
    senders = {edge.source for edge in latent}
    assert sorted(users) == sorted([*(edge.id for edge in latent), *senders])
    for backbone in plan.backbones.values():
        assert backbone.info.hidden_size in {info.hidden_size for info in pair[1].values()}
    assert plan.n_parameters == sum(map(parameters, plan.links))


def parameters(link: LinkPlan) -> int:
    """Closed formulas for the number of weights."""
    i, o = link.in_dim, link.out_dim
    hidden = link.options.get("expansion", 0) * o
    projection = i * o + o if link.options.get("residual") == "projection" else 0
    mlp = i * hidden + hidden + hidden * o + o
    correction = 2 * o + o * hidden + hidden + hidden * o + o
    return {
        "identity": 0,
        "linear": i * o + o,
        "linear_residual": i * o + o + projection,
        "mlp": mlp,
        "mlp_residual": mlp + projection,
        "recursive": 2 * i + mlp + projection + 2 * o,
        "soft_token": correction if link.options.get("residual") else 0,
    }[link.kind]


@pytest.mark.parametrize(("i", "o"), [(8, 16), (24, 24)])
def test_formulas_of_the_paper(i: int, o: int) -> None:
    fields = {"id": "x", "kind": "recursive", "init": "default", "norm": "none", "n_parameters": 0}
    fields |= {"source": "s", "target": "t", "users": (), "differentiable": True}
    inner = LinkPlan(role="inner", in_dim=o, out_dim=o, options={"expansion": 1}, **fields)
    assert parameters(inner) == 2 * (o * o + o) + 4 * o
    options = {"expansion": 2, "residual": "projection"}
    outer = LinkPlan(role="outer", in_dim=i, out_dim=o, options=options, **fields)
    assert parameters(outer) == 2 * i * o + 2 * o + 2 * o * o + o + i * o + o + 2 * i + 2 * o
