"""Baselines: each is made from any team's graph, trains with the budget, and is compared fairly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import latentmas as lm
from latentmas.errors import DataError, LatentMASError
from latentmas.studies import BaselineReport, baselines, open_baseline, read_cells, run_baseline
from latentmas.studies.baselines._training import rows_seen, single_texts
from latentmas.testing import tiny_backbone

ROWS = [{"passage": f"{n} is a number.", "question": "Which?", "answer": str(n)} for n in range(6)]
TRAIN = [{**row, "answer": "7"} for row in ROWS]
QUICK: dict[str, Any] = {"max_steps": 2, "train_batch_size": 4}


def graph(prompt: str | None = None, **link: Any) -> lm.Graph:
    """A reader that is shown the passage, and an answerer that is not."""
    model = tiny_backbone("llama", 16)
    team = lm.Graph("relay", inputs=["passage", "question"], rounds=1, latent_steps=2)
    team.add_agent("reader", model, prompt="Read: {{ passage }}", max_new_tokens=3)
    prompt = prompt or "Note: {{ note }}\nQuestion: {{ question }}\nAnswer with a number."
    team.add_agent("answerer", model, prompt=prompt, max_new_tokens=2)
    team.connect("reader", "answerer.note", **link)
    return team.output("answerer")


@pytest.fixture(scope="module")
def team() -> lm.System:
    return graph().compile().load()


def alone(team: lm.Graph, **options: Any) -> lm.Graph:
    return open_baseline("single", **options).graph(team.compile())


def shown(made: lm.Graph, **sample: str) -> str:
    """What the only agent of a graph reads."""
    system = made.compile().load()
    ids, _ = single_texts(system, [{**sample, "answer": ""}], "answer")[0]
    return system.backbone_of(system.plan.output).tokenizer.decode(ids)


# --- what a single model is shown ---------------------------------------------------------------


def test_a_single_agent_is_shown_every_input_and_no_message():
    made = alone(graph())
    (agent,) = made.spec().agents
    assert agent.prompt == "Passage: {{ passage }}\nQuestion: {{ question }}\nAnswer with a number."
    assert agent.max_new_tokens == 2
    assert not made.spec().edges
    assert "Passage: P\nQuestion: Q\nAnswer" in shown(made, passage="P", question="Q")


def test_a_message_inside_a_sentence_is_empty():
    prompt = "{% if note %}Use {{ note }} for{% else %}Solve{% endif %} {{ question }} [{{ note }}]"
    said = shown(alone(graph(prompt)), passage="P", question="Q")
    assert "Passage: P\nSolve Q []" in said


def test_the_prompt_and_the_system_turn_can_be_given():
    made = alone(graph(), prompt="Say {{ question }}!", system="Be brief.", max_new_tokens=9)
    (agent,) = made.spec().agents
    assert (agent.prompt, agent.system, agent.max_new_tokens) == (
        *("Say {{ question }}!", "Be brief."),
        9,
    )
    assert made.spec().inputs == ("question",)


def test_a_single_agent_is_not_told_of_a_team():
    tiny = tiny_backbone("llama", 16)
    team = lm.templates.sequential(planner=tiny, critic=tiny, solver=tiny)
    (agent,) = alone(team).spec().agents
    assert agent.system is None
    assert agent.prompt.startswith("You are the solver.\nQuestion: {{ question }}\nWork through")
    calls = lm.templates.deliberation(reflector=tiny, tool_caller=tiny, tools=["python"])
    (agent,) = alone(calls).spec().agents
    assert agent.system is not None and agent.system.startswith("{% raw %}Whoever answers")


def test_a_single_agent_reads_the_text_sources_of_others():
    team = graph()
    team.add_agent(
        "reader", tiny_backbone("llama", 16), prompt="{{ rules }} {{ passage }}", replace=True
    )
    team.add_text_source("rules", "No guessing.")
    team.connect("rules", "reader.rules")
    made = alone(team)
    assert "Passage: P\nRules: No guessing.\nQuestion: Q" in shown(made, passage="P", question="Q")


# --- comparisons ------------------------------------------------------------------------------


def compare(name: str, team: Any, folder: Path, **options: Any) -> BaselineReport:
    given = {"train_rows": TRAIN, **QUICK, **options}
    return run_baseline(name, team, ROWS, folder=folder, **given)


def test_team_and_baseline_answer_the_same_rows(team: lm.System, tmp_path: Path):
    found = compare("single", team, tmp_path)
    assert list(found.systems) == ["team", "single"]
    assert found.rows == 6
    single = found.systems["single"]
    assert single.effort.trained_parameters == single.effort.steps == single.effort.tokens == 0
    weights = sum(p.numel() for p in team.backbone_of("answerer").model.parameters())
    assert single.effort.parameters == weights
    links = sum(p.numel() for p in team.parameters())
    assert found.systems["team"].effort.parameters == weights + links
    assert single.difference is not None and single.difference.mean == 0
    assert "team less system" in str(found) and "system  trained" in str(found)
    assert found.to_dict()["systems"]["single"]["effort"]["rows"] == 0


def test_the_text_twin_writes_what_the_team_thinks(team: lm.System, tmp_path: Path):
    found = compare("text_twin", team, tmp_path, with_team=False)
    assert list(found.systems) == ["text_twin"]
    assert found.systems["text_twin"].new_tokens > 6 * 2  # the reader writes too
    assert "team less system" not in str(found)


def test_lora_has_as_many_weights_as_the_links(team: lm.System, tmp_path: Path):
    found = compare("lora", team, tmp_path)
    links = sum(p.numel() for p in team.parameters())
    lora = found.systems["lora"]
    each = lora.effort.trained_parameters / lora.facts["rank"]
    assert abs(lora.effort.trained_parameters - links) <= each / 2
    assert lora.facts["team_parameters"] == links
    assert (lora.effort.steps, lora.effort.rows) == (2, 6)  # four rows, then the two others
    assert not team.agent_adapters()  # the team is as it was
    assert f"{lora.effort.trained_parameters:,}" in str(found)


def test_lora_learns_the_answer(team: lm.System, tmp_path: Path):
    rows = [{**row, "answer": "7"} for row in ROWS]
    given: dict[str, Any] = {"train_rows": rows, "with_team": False, "learning_rate": 0.02}
    given |= {"max_steps": 12, "train_batch_size": 6, "rank": 8}
    found = run_baseline("lora", team, rows, folder=tmp_path, **given)
    assert found.systems["lora"].score == 1
    assert run_baseline("single", team, rows, folder=tmp_path).systems["single"].score == 0


def test_seeds_are_averaged_row_by_row(team: lm.System, tmp_path: Path):
    found = compare("lora", team, tmp_path, seeds=2, rank=1, with_team=False)
    assert [cell.settings["seed"] for cell in found.cells["lora"]] == [0, 1]
    assert len(found.systems["lora"].seed_scores) == 2
    assert "lora: mean of 2 seeds" in str(found)


def test_what_is_finished_is_read(team: lm.System, tmp_path: Path, monkeypatch: Any):
    first = compare("lora", team, tmp_path, rank=1)
    monkeypatch.setattr(lm.System, "run", None)
    again = compare("lora", team, tmp_path, rank=1)
    assert again == first
    assert len(read_cells(tmp_path)) == 2
    with pytest.raises(DataError, match="made from another team, other data"):
        run_baseline("single", team, ROWS[:3], folder=tmp_path)


def test_a_stopped_training_continues(team: lm.System, tmp_path: Path, monkeypatch: Any):
    def refuse(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(lm.System, "run", refuse)
        compare("lora", team, tmp_path, rank=1, with_team=False)
    (saved,) = tmp_path.glob("*/training/team/adapters.safetensors")
    before = saved.stat().st_mtime_ns
    assert compare("lora", team, tmp_path, rank=1, with_team=False).systems["lora"].effort.rows == 6
    assert saved.stat().st_mtime_ns == before


def test_graphs_and_plans_are_loaded_when_needed(tmp_path: Path, monkeypatch: Any):
    found = run_baseline("single", graph(), ROWS, folder=tmp_path)
    monkeypatch.setattr(lm.Plan, "load", None)
    assert run_baseline("single", graph().compile(), ROWS, folder=tmp_path) == found


@pytest.mark.parametrize(("rows", "batch", "steps", "seen"), [(6, 4, 3, 10), (6, 8, 2, 12)])
def test_rows_seen_are_those_of_the_loader(rows: int, batch: int, steps: int, seen: int):
    assert rows_seen(rows, batch, steps) == seen


# --- mistakes ---------------------------------------------------------------------------------


def test_every_mistake_is_found_before_weights_are_loaded(tmp_path: Path, monkeypatch: Any):
    monkeypatch.setattr(lm.Plan, "load", None)
    options: dict[str, Any] = {"rank": 0, "run_options": {"temperatur": 1}}
    with pytest.raises(LatentMASError) as caught:
        run_baseline(
            "lora",
            graph(),
            [{"passage": "p", "answer": "a"}],
            folder=tmp_path,
            grader="exakt",
            seeds=0,
            **options,
        )
    said = str(caught.value)
    assert said.startswith("5 problems:")
    for part in (
        "seeds is 0",
        "did you mean 'temperature'?",
        "rank: Input should be greater than or equal to 1, found 0",
        "did you mean 'exact'?",
        "rows, row 0 lacks the field 'question'",
    ):
        assert part in said
    assert list(tmp_path.iterdir()) == []


def test_a_single_mistake_is_raised_as_it_is(tmp_path: Path):
    with pytest.raises(lm.UnknownNameError, match="did you mean 'lora'"):
        run_baseline("lore", graph(), ROWS, folder=tmp_path)
    with pytest.raises(TypeError, match="did you mean 'rank'"):
        run_baseline("lora", graph(), ROWS, folder=tmp_path, train_rows=TRAIN, rang=1)
    with pytest.raises(LatentMASError, match="is trained; give its training rows"):
        run_baseline("lora", graph(), ROWS, folder=tmp_path)
    with pytest.raises(LatentMASError, match="they have no weights; give the rank"):
        compare("lora", graph(residual=False), tmp_path)
    with pytest.raises(TypeError, match="team is a str; give a System"):
        run_baseline("single", "team", ROWS, folder=tmp_path)  # type: ignore[arg-type]
    with pytest.raises(lm.GraphError, match="LM103"):
        compare("single", graph(), tmp_path, prompt="{{ question }} {{ nothing }}")


# --- every baseline ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", baselines.names())
def test_a_baseline_describes_itself(name: str):
    kind = baselines.get(name)
    assert kind.summary and kind.__doc__
    for option, field in kind.Options.model_fields.items():
        assert not field.is_required(), option
