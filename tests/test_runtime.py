"""Running: the cached executor against the oracle, batches against singles, records, errors."""

from __future__ import annotations

import jinja2
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import latentmas as lm
from latentmas.generation.sampling import Sampling, pick
from latentmas.runtime import RunBegin, RunEnd, StepEnd, Token
from latentmas.testing import TINY_FAMILIES, tiny_backbone
from tests.teams import QUESTIONS, load64, of_template, sequential

TEMPLATES = ("sequential", "mixture", "distillation", "deliberation")
# transformers computes norms and rotary angles in fp32 even in fp64 models: that is the floor.
FLOOR = 2e-6


def largest_difference(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


@pytest.fixture(scope="module")
def team():
    return load64(sequential())


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_cached_equals_reference_and_a_batch_equals_singles(template, family):
    system = load64(of_template(template, family))
    options = {"record": ("messages", "states")}
    cached = system.run(QUESTIONS, **options)
    plain = system.run(QUESTIONS, executor="reference", **options)
    assert cached.token_ids == plain.token_ids
    assert largest_difference(cached.messages, plain.messages) < FLOOR
    assert largest_difference(cached.states, plain.states) < FLOOR
    singles = [system.run([question], **options) for question in QUESTIONS]
    assert cached.texts == [single.text for single in singles]
    for row, single in enumerate(singles):
        rows = {name: value[row : row + 1] for name, value in cached.messages.items()}
        assert largest_difference(rows, single.messages) < FLOOR


@pytest.mark.parametrize(
    "family", [f for f in TINY_FAMILIES if f not in ("llama", "qwen2", "qwen3")]
)
def test_other_families_agree_too(family):
    system = load64(of_template("distillation", family))
    cached = system.run(QUESTIONS, record=("messages",))
    plain = system.run(QUESTIONS, executor="reference", record=("messages",))
    assert cached.token_ids == plain.token_ids
    assert largest_difference(cached.messages, plain.messages) < FLOOR
    single = system.run(QUESTIONS[:1], record=("messages",))
    rows = {name: value[:1] for name, value in cached.messages.items()}
    assert largest_difference(rows, single.messages) < FLOOR


def test_messages_depend_on_the_question(team):
    """Without this the parity tests could compare constants."""
    messages = team.run(QUESTIONS, record=("messages",)).messages
    for name, message_BKD in messages.items():
        assert (message_BKD[0] - message_BKD[1]).abs().max() > 1e-3, name
        assert (message_BKD[:, 0] - message_BKD[:, 1]).abs().max() > 1e-4, name


def test_rounds_feed_back(team):
    """A changed feedback message changes what the planner sends in the next round."""
    whole = team.run(QUESTIONS, record=("messages",)).messages

    def cut(name: str, message: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(message) if name == "round1.solver->planner" else message

    edited = team.run(QUESTIONS, record=("messages",), edit_message=cut).messages
    assert torch.equal(edited["round1.planner->critic"], whole["round1.planner->critic"])
    assert not torch.equal(edited["round2.planner->critic"], whole["round2.planner->critic"])
    assert not edited["round1.solver->planner"].any()


def test_column_positions_equal_mask_positions_for_rotary_models(team):
    mask = team.run(QUESTIONS, record=("messages",)).messages
    column = team.run(QUESTIONS, record=("messages",), position_mode="column").messages
    assert largest_difference(mask, column) < 1e-5


@given(batch_size=st.integers(1, 5), order=st.permutations(range(5)))
@settings(max_examples=8)
def test_batching_and_order_change_nothing(team, batch_size, order):
    questions = [f"{QUESTIONS[i % 3]} {i}" for i in range(5)]
    plain = team.run(questions)
    shuffled = team.run([questions[i] for i in order], batch_size=batch_size)
    assert shuffled.texts == [plain.texts[i] for i in order]


def test_sampling_gives_each_row_its_own_stream(team):
    options = {"do_sample": True, "temperature": 3.0, "seed": 7}
    together = team.run(QUESTIONS, **options)
    halves = team.run(QUESTIONS, batch_size=2, **options)
    assert together.token_ids == halves.token_ids
    assert (
        together.token_ids != team.run(QUESTIONS, do_sample=True, temperature=3.0, seed=8).token_ids
    )


@given(
    scores=st.lists(st.floats(-5, 5), min_size=4, max_size=12),
    u=st.floats(0, 0.999),
    top_p=st.floats(0.1, 1.0),
    top_k=st.integers(1, 12),
)
def test_drawn_tokens_are_among_the_candidates(scores, u, top_p, top_k):
    logits = torch.tensor([scores])
    sampling = Sampling(do_sample=True, top_p=top_p, top_k=top_k)
    token = int(pick(logits, sampling, torch.tensor([u])))
    ranked = logits[0].sort(descending=True, stable=True)
    place = ranked.indices.tolist().index(token)
    before = float(ranked.values.softmax(0)[:place].sum())
    ties = float((ranked.values == ranked.values[place]).sum())
    assert place < top_k - 1 + ties
    assert before < top_p + 1e-6 or place == 0


def test_draws_follow_the_distribution():
    logits = torch.tensor([[0.0, 1.0, 2.0]]).expand(20000, 3)
    u = torch.rand(20000, generator=torch.Generator().manual_seed(0))
    counts = pick(logits, Sampling(do_sample=True), u).bincount(minlength=3) / 20000
    assert torch.allclose(counts, torch.tensor([0.0, 1.0, 2.0]).softmax(0), atol=0.01)


def test_run_overrides_depth(team):
    one = team.run(QUESTIONS, rounds=1, latent_steps=2, record=("messages",))
    assert set(one.messages) == {"round1.planner->critic", "round1.critic->solver"}
    assert one.messages["round1.critic->solver"].shape == (3, 2, 16)
    with pytest.raises(lm.GraphError, match="rounds is 0"):
        team.run(QUESTIONS, rounds=0)


def test_empty_message_channel():
    graph = sequential(rounds=2)
    agents = [a.model_copy(update={"allow_empty": True}) for a in graph.spec().agents]
    system = graph.replace(latent_steps=0, agents=agents).compile().load()
    result = system.run(QUESTIONS, record=("messages",))
    assert result.messages["round1.planner->critic"].shape == (3, 0, 32)
    assert len(result.texts) == 3


def positions_of(system: lm.System, agent: str, steps: int, **fields: str) -> int:
    """Positions of a prompt, counted apart: its words in tokens, and K for a message."""
    spec, tokenizer = system.plan.graph.agent(agent), system.backbone_of(agent).tokenizer
    slots = [edge.slot for edge in system.plan.graph.edges if edge.target == agent]
    words = jinja2.Template(spec.prompt).render(**fields, **dict.fromkeys(slots, "§"))
    system_turn = [{"role": "system", "content": spec.system}] if spec.system else []
    turn = [*system_turn, {"role": "user", "content": words}]
    text = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    pieces = text.split("§")
    ids = [tokenizer(piece, add_special_tokens=False).input_ids for piece in pieces]
    return sum(map(len, ids)) + steps * (len(pieces) - 1)


def test_accounting_counts_every_position(team):
    result = team.run(QUESTIONS, batch_size=2)
    ops = [(r.round, r.agent, r.op) for r in result.accounting]
    assert ops[0] == (1, "planner", "rollout") and ops[-1] == (3, "solver", "decode")
    assert len(ops) == 9
    for record in result.accounting[1:]:  # the first prompt has no feedback yet
        counted = [positions_of(team, record.agent, 3, question=q) for q in QUESTIONS]
        assert record.prompt_tokens == sum(counted), record.agent
    assert [r.latent_steps for r in result.accounting] == [3 * len(QUESTIONS)] * 8 + [0]
    assert result.accounting[-1].new_tokens == sum(map(len, result.token_ids))
    assert "planner" in result.summary()


def test_events_tell_the_run(team):
    events: list[object] = []
    result = team.run(QUESTIONS, batch_size=2, on_event=events.append)
    assert isinstance(events[0], RunBegin) and events[0].samples == 3
    assert isinstance(events[-1], RunEnd) and events[-1].error is None
    assert sum(e.samples for e in events if isinstance(e, StepEnd)) == 3 * len(team.plan.steps)
    streamed: dict[int, list[int]] = {}
    for event in events:
        if isinstance(event, Token):
            streamed.setdefault(event.sample, []).append(event.token_id)
    assert [streamed.get(i, []) for i in range(3)] == result.token_ids


def test_no_samples_is_an_empty_result(team):
    result = team.run([])
    assert result.texts == [] and result.token_ids == [] and result.accounting == []


def test_text_twin_speaks_on_every_edge():
    twin = sequential().as_text(max_new_tokens=3).compile().load()
    result = twin.run(QUESTIONS)
    assert len(result.text_messages) == 8 and not result.messages
    assert all(len(texts) == 3 for texts in result.text_messages.values())


def test_text_sources_reach_the_prompt():
    tiny = tiny_backbone("llama", 16)
    graph = lm.Graph("facts", inputs=["question"], rounds=1, latent_steps=2)
    graph.add_agent("one", tiny, prompt="{{ facts }} {{ rule }} {{ question }}")
    graph.add_text_source("facts", lambda sample: f"[{sample['question'].upper()}]")
    graph.add_text_source("rule", "Be brief.")
    graph.connect("facts", "one")
    graph.connect("rule", "one")
    plan = graph.output("one").compile()
    long = plan.load().run(["hello"], max_new_tokens=2).accounting[0].prompt_tokens
    assert (
        long
        == plan.load(text_functions={"facts": lambda s: "[.....]"})
        .run(["hello"], max_new_tokens=2)
        .accounting[0]
        .prompt_tokens
    )
    with pytest.raises(lm.LatentMASError, match="facts"):
        lm.Plan.from_json(plan.to_json()).load()


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ([{"query": "x"}], ["sample 0", "'question'", "query"]),
        (["fine", 3], ["sample 1", "int"]),
        ("one string", ["sequence of samples"]),
    ],
)
def test_bad_samples_are_named(team, samples, words):
    with pytest.raises(lm.DataError) as caught:
        team.run(samples)
    assert all(word in str(caught.value) for word in words)


def test_a_prompt_longer_than_the_context_says_so(team):
    with pytest.raises(lm.DataError, match=r"sample 1: agent 'planner'.* 4096 positions"):
        team.run(["x", "x" * 5000])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"executor": "cache"}, "did you mean 'cached'"),
        ({"record": ("logits",)}, "unknown record 'logits'; known: messages, states, report"),
        ({"batch_size": 0}, "batch_size"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"temperature": 0.0}, "temperature"),
        ({"top_p": 1.5}, "top_p"),
    ],
)
def test_bad_options_are_named(team, options, message):
    with pytest.raises(lm.LatentMASError, match=message):
        team.run(QUESTIONS, **options)


def test_bad_devices_are_named():
    plan = sequential().compile()
    with pytest.raises(lm.LatentMASError, match="did you mean 'critic'"):
        plan.load({"crític": "cpu"})
    with pytest.raises(lm.LatentMASError, match="not available"):
        plan.load("cuda:63")


def test_equal_backbones_are_loaded_once_and_can_be_reused(team):
    assert team.backbone_of("planner") is team.backbone_of("solver")
    assert team.backbone_of("planner") is not team.backbone_of("critic")
    system = sequential().compile().load()
    twin = lm.System.load(sequential().as_text().compile(), reuse=system)
    assert twin.backbone_of("critic") is system.backbone_of("critic")


@pytest.mark.gpu
def test_cuda_agrees_with_the_cpu():
    cpu, gpu = sequential().compile().load("cpu"), sequential().compile().load("cuda")
    gpu.load_state_dict(cpu.state_dict())
    a = cpu.run(QUESTIONS, record=("messages",)).messages
    b = gpu.run(QUESTIONS, record=("messages",)).messages
    assert largest_difference(a, b) < 1e-3
