"""Several edges into one slot: concatenated or averaged, and the same in text."""

from __future__ import annotations

import pytest
import torch
import yaml

import latentmas as lm
from latentmas.backbones import LoadedBackbone
from latentmas.plan import Combine
from latentmas.runtime import interpreter
from tests.teams import QUESTIONS, load64, tiny


def team(prompt: str, *slots: str, combine: str | None = None, link: str = "recursive") -> lm.Graph:
    """Two experts on two widths, and a summarizer that reads both."""
    small, wide = tiny("llama", 16), tiny("qwen2", 32, seed=1)
    graph = lm.Graph("pair", inputs=["question"], rounds=2, latent_steps=3)
    graph.add_agent("math", small, prompt="Count: {{ question }}", inner="recursive")
    graph.add_agent("code", wide, prompt="Write: {{ question }}", inner="recursive")
    graph.add_agent("summarizer", small, prompt=prompt, max_new_tokens=4, inner="recursive")
    graph.add_agent(
        "judge", small, prompt="{{ summary }} {{ question }}", max_new_tokens=4, inner="recursive"
    )
    options = {"combine": combine} if combine else {}
    for name, slot in zip(("math", "code"), slots, strict=True):
        graph.connect(name, f"summarizer.{slot}", link=link, **options)
    graph.connect("summarizer", "judge.summary", link=link)
    return graph.output("judge")


NOTES = "Notes: {{ notes }}\n{{ question }}"


def test_concat_is_two_slots_side_by_side():
    apart = load64(team("Notes: {{ a }}{{ b }}\n{{ question }}", "a", "b"))
    joined = load64(team(NOTES, "notes", "notes", combine="concat"))
    same = {".a": ".notes", ".b": ".notes"}
    weights = {}
    for name, weight in apart.state_dict().items():
        for old, new in same.items():
            name = name.replace(f"summarizer/{old[1:]}", f"summarizer/{new[1:]}")
        weights[name] = weight
    joined.load_state_dict(weights)
    one, other = (s.run(QUESTIONS, record=("states",)) for s in (apart, joined))
    assert one.token_ids == other.token_ids
    for name, value in one.states.items():
        assert torch.allclose(value, other.states[name], rtol=0, atol=2e-6)


def test_the_mean_of_two_equal_messages_is_the_message():
    system = load64(team(NOTES, "notes", "notes", combine="mean"))
    given = torch.randn(len(QUESTIONS), 3, 16, dtype=torch.float64)
    twice = system.run(QUESTIONS, record=("states",), edit_message=_give({"": given}))
    assert torch.isfinite(twice.states["round2.summarizer"]).all()
    lone = torch.zeros_like(given)  # rows of zeros stand for no row
    once = system.run(
        QUESTIONS, record=("states",), edit_message=_give({"math": given, "code": lone})
    )
    for name, value in twice.states.items():
        assert torch.allclose(value, once.states[name], rtol=0, atol=2e-6)


def _give(messages: dict[str, torch.Tensor]):
    def edit(name: str, message: torch.Tensor) -> torch.Tensor:
        if not name.endswith("->summarizer"):
            return message
        sender = name.split(".")[1].split("->")[0]
        return messages.get(sender, messages.get("", message))

    return edit


@pytest.mark.parametrize("how", ["concat", "mean"])
def test_executors_and_batches_agree(how):
    system = load64(team(NOTES, "notes", "notes", combine=how))
    cached = system.run(QUESTIONS, record=("states",))
    plain = system.run(QUESTIONS, record=("states",), executor="reference")
    single = system.run(QUESTIONS[:1], record=("states",))
    assert cached.token_ids == plain.token_ids
    assert single.token_ids[0] == cached.token_ids[0]
    for name, value in cached.states.items():
        assert torch.allclose(value, plain.states[name], rtol=0, atol=2e-6)
        assert torch.allclose(value[:1], single.states[name], rtol=0, atol=2e-6)


@pytest.mark.parametrize("how", ["concat", "mean"])
def test_both_edges_learn(how, tmp_path):
    system = team(NOTES, "notes", "notes", combine=how).compile().load()
    before = {id: system.link(id).state_dict() for id in system.link_ids()}
    before = {id: {k: v.clone() for k, v in own.items()} for id, own in before.items()}
    rows = [{"question": "1 + 1?", "answer": "2"}, {"question": "2 + 1?", "answer": "3"}]
    config = lm.OuterConfig(str(tmp_path), max_steps=1, use_cpu=True, train_links="all")
    lm.OuterTrainer(system, config, train_dataset=rows).train()
    for id in ("outer.math->summarizer.notes", "outer.code->summarizer.notes"):
        assert system.plan.link(id).differentiable
        after = system.link(id).state_dict()
        assert any(not torch.equal(after[key], value) for key, value in before[id].items()), id


def test_the_text_twin_reads_a_line_of_each():
    twin = team(NOTES, "notes", "notes", combine="concat").as_text(max_new_tokens=3)
    system = twin.compile().load()
    read = []
    with system.tap("math->summarizer") as math, system.tap("code->summarizer") as code:
        result = system.run(["one"], on_event=read.append)
    assert [*math.texts.values()] and [*code.texts.values()]
    told = team(NOTES.replace("{{ notes }}", "{{ a }}\n{{ b }}"), "a", "b").as_text(
        max_new_tokens=3
    )
    assert told.compile().load().run(["one"]).texts == result.texts


def test_the_step_is_in_the_plan_and_survives_a_file(tmp_path):
    graph = team(NOTES, "notes", "notes", combine="mean")
    plan = graph.compile()
    steps = [step for step in plan.steps if isinstance(step, Combine)]
    assert [(s.round, s.agent, s.slot, s.how) for s in steps] == [
        (2, "summarizer", "notes", "mean")
    ]
    assert lm.Plan.from_json(plan.to_json()) == plan
    graph.save(tmp_path / "team.yaml")
    assert [e.get("combine") for e in yaml.safe_load((tmp_path / "team.yaml").read_text())["edges"]]
    assert lm.Graph.load(tmp_path / "team.yaml") == graph


@pytest.mark.parametrize("ways", [("concat", None), ("concat", "mean")])
def test_edges_that_disagree_are_refused(ways):
    tiny_one = tiny("llama", 16)
    graph = lm.Graph("pair", inputs=["question"], rounds=1, latent_steps=2)
    for name in ("a", "b"):
        graph.add_agent(name, tiny_one, prompt="{{ question }}")
    graph.add_agent("c", tiny_one, prompt="{{ notes }}{{ question }}")
    for name, how in zip("ab", ways, strict=True):
        graph.connect(name, "c.notes", combine=how)
    graph.output("c")
    with pytest.raises(lm.GraphError, match=r"LM104 .*'notes' is bound by 'a', 'b'") as caught:
        graph.compile()
    assert 'combine="concat"' in str(caught.value)


def receivers(*slots: str, sent: int = 3, **options) -> lm.Graph:
    """Two senders, and one receiver for each slot, all on one backbone; then a judge."""
    model = tiny("llama", 16)
    graph = lm.Graph("many", inputs=["question"], rounds=1, latent_steps=3)
    for name in ("a", "b"):
        graph.add_agent(name, model, prompt="{{ question }}", inner="recursive", latent_steps=sent)
    for number, slot in enumerate(slots):
        prompt = f"{number} {{{{ {slot} }}}} {{{{ question }}}}"
        graph.add_agent(f"r{number}", model, prompt=prompt, inner="recursive")
        for name in ("a", "b"):
            graph.connect(name, f"r{number}.{slot}", link="recursive", **options)
    prompt = "".join(f"{{{{ r{number} }}}}" for number in range(len(slots))) + "{{ question }}"
    graph.add_agent("judge", model, prompt=prompt, max_new_tokens=3, inner="recursive")
    for number in range(len(slots)):
        graph.connect(f"r{number}", f"judge.r{number}", link="recursive")
    return graph.output("judge")


def test_a_slot_may_be_called_text():
    result = load64(receivers("text", combine="concat")).run(["one"])
    assert len(result.token_ids[0]) == 3


def test_receivers_of_combined_messages_run_as_one_batch(monkeypatch):
    system = load64(receivers("notes", "notes", combine="concat"))
    rows: list[int] = []
    plain = LoadedBackbone.step

    def step(self, x, *args, **options):
        rows.append(x.shape[0])
        return plain(self, x, *args, **options)

    monkeypatch.setattr(LoadedBackbone, "step", step)
    system.run(["one"], max_new_tokens=1)
    assert rows == [2] * (len(rows) - 1) + [1]  # only the judge's own prompt has one row


def test_one_source_fills_a_slot_once():
    graph = receivers("notes", combine="concat")
    graph.rounds = 2
    graph.feedback("a", "r0.notes", combine="concat")
    with pytest.raises(lm.GraphError, match="LM104") as caught:
        graph.compile()
    assert "different sources" in str(caught.value)


def test_a_slot_that_is_filled_in_round_one_needs_no_guard():
    graph = receivers("notes", combine="concat")
    graph.rounds = 2
    graph.feedback("judge", "r0.notes", link="recursive", combine="concat")
    system = load64(graph)
    one, two = (s for s in system.plan.steps if isinstance(s, Combine))
    assert (len(one.sources), len(two.sources)) == (2, 3)
    assert len(system.run(["one"]).token_ids[0]) == 3


def test_messages_are_brought_to_the_receiver(monkeypatch):
    """A link lies with its sender, which may be on another device."""
    system = team(NOTES, "notes", "notes", combine="mean").compile().load()
    moved: list[object] = []
    plain, plain_combine = torch.Tensor.to, interpreter.combine_messages

    def to(self, *args, **options):
        moved.extend(one for one in args if isinstance(one, torch.device))
        return plain(self, *args, **options)

    def combined(how, messages):
        moved.append(len(messages))
        return plain_combine(how, messages)

    monkeypatch.setattr(interpreter, "combine_messages", combined)
    monkeypatch.setattr(torch.Tensor, "to", to)
    system.run(["one"])
    place = moved.index(2)
    assert moved[place - 2 : place] == [system.backbone_of("summarizer").device] * 2


def test_edited_texts_reach_the_combined_slot():
    system = team(NOTES, "notes", "notes", combine="concat").as_text(max_new_tokens=3)
    system = system.compile().load()
    system.tap("math->summarizer", lambda name, texts: ["seven"] * len(texts))
    system.tap("code->summarizer", lambda name, texts: ["eight"] * len(texts))
    edited = system.run(["one"]).text_messages["round2.summarizer.text"]
    alone = lm.Graph("alone", inputs=["question"], rounds=1)
    prompt = "Notes: seven\neight\n{{ question }}"
    alone.add_agent("summarizer", tiny("llama", 16), prompt=prompt, max_new_tokens=4)
    assert alone.output("summarizer").compile().load().run(["one"]).texts == edited


def test_a_prompt_is_too_long_with_all_messages_together():
    """Two messages of 2,100 rows do not fit into 4,096 positions, though each alone would."""
    system = receivers("notes", sent=2100, combine="concat").compile().load()
    with pytest.raises(lm.DataError, match="sample 0"):
        system.run(["one"])
