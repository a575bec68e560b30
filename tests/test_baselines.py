"""Baselines: each is made from any team's graph, trains with the budget, and is compared fairly."""

from __future__ import annotations

import importlib.util
import json
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import latentmas as lm
from latentmas.cli.app import app
from latentmas.errors import DataError, LatentMASError
from latentmas.plan import Decode
from latentmas.studies import BaselineReport, open_baseline, read_cells, run_baseline
from latentmas.studies.baselines import baselines
from latentmas.studies.baselines._training import rows_seen, single_texts
from latentmas.testing import tiny_backbone
from tests.looped_model import looped_model

ROWS = [{"passage": f"{n} is a number.", "question": "Which?", "answer": str(n)} for n in range(6)]
TRAIN = [{**row, "answer": "7"} for row in ROWS]
TINY = tiny_backbone("llama", 16)
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


# --- others' work -----------------------------------------------------------------------------


def test_mixture_of_agents_asks_all_what_the_single_agent_is_asked(team: lm.System, tmp_path: Path):
    made = open_baseline("mixture_of_agents", layers=2, proposers=3).graph(team.plan)
    plan = made.compile()
    assert [agent.name for agent in plan.graph.agents] == [
        *("proposer_1", "proposer_2", "proposer_3"),
        "aggregator",
    ]
    (asked,) = open_baseline("single").graph(team.plan).spec().agents
    assert {agent.prompt for agent in plan.graph.agents} == {asked.prompt}
    found = compare("mixture_of_agents", team, tmp_path, with_team=False)
    assert found.systems["mixture_of_agents"].new_tokens == 6 * 2 * (2 * 2 + 1)


def test_a_looped_model_reads_its_layers_several_times(tmp_path: Path):
    source = looped_model(tmp_path / "model")
    with pytest.raises(lm.GraphError, match="LM201"):
        compare("looplm", graph(), tmp_path / "study", source=source)
    made = open_baseline("looplm", source=source, trust_remote_code=True, loops=2)
    system = made.graph(graph().compile()).compile().load()
    samples = [{"passage": "p" * n, "question": "q"} for n in (1, 5)]
    cached, plain = (
        system.run(samples, executor=name, max_new_tokens=6).token_ids
        for name in ("cached", "reference")
    )
    assert cached == plain
    model: Any = system.backbone_of("answerer").model
    assert model.config.total_ut_steps == 2


def test_a_finetuned_model_is_a_backbone(team: lm.System, tmp_path: Path, capsys: Any):
    pytest.importorskip("trl", reason="needs trl (extra baselines)")
    rows = [{**row, "answer": "7"} for row in ROWS]
    given: dict[str, Any] = {"train_rows": rows, "with_team": False, "learning_rate": 0.005}
    before = {name: w.clone() for name, w in team.backbone_of("answerer").model.named_parameters()}
    found = run_baseline("sft", team, rows, folder=tmp_path, max_steps=30, **given)
    sft = found.systems["sft"]
    assert sft.score == 1
    assert sft.effort.trained_parameters == sft.effort.parameters
    assert capsys.readouterr().out == ""
    (model,) = tmp_path.glob("*/model")
    assert not list(tmp_path.glob("*/training"))
    tuned = lm.Graph("tuned", inputs=["passage", "question"], rounds=1)
    tuned.add_agent("one", lm.Backbone(str(model)), prompt=alone(graph()).spec().agents[0].prompt)
    assert tuned.output("one").compile().load().run(rows[:1], max_new_tokens=2).texts == ["7"]
    after = dict(team.backbone_of("answerer").model.named_parameters())
    assert all(bool((after[name] == weight).all()) for name, weight in before.items())


def test_sft_refuses_weights_that_it_cannot_train(tmp_path: Path):
    model = lm.Backbone(tiny_backbone("llama", 16).source, quantization="torchao:int8_weight_only")
    team = lm.Graph("one", inputs=["passage", "question"], rounds=1)
    team.add_agent("one", model, prompt="{{ passage }} {{ question }}")
    plan = team.output("one").compile()
    said = list(open_baseline("sft").problems(plan))
    assert "is declared with quantization" in said[-1]


class _Rewriter(BaseHTTPRequestHandler):
    """An endpoint whose model always proposes the same system turn."""

    def do_GET(self) -> None:
        model = {"id": "rewriter", "object": "model", "created": 0, "owned_by": "tests"}
        self._send({"object": "list", "data": [model]})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert asked["model"] == "rewriter"
        text = "Be exact. <IMPROVED_VARIABLE>Say {{ 7 }}.</IMPROVED_VARIABLE>"
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        told = {"id": "1", "object": "chat.completion", "created": 0, "model": "m"}
        self._send(told | {"choices": [choice]})

    def _send(self, told: dict[str, Any]) -> None:
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Nothing."""


@pytest.fixture
def endpoint() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Rewriter)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()
    thread.join()


@pytest.mark.filterwarnings("ignore")  # textgrad and litellm warn while they are imported
def test_textgrad_rewrites_system_turns(team: lm.System, tmp_path: Path, endpoint: str):
    if importlib.util.find_spec("textgrad") is None:  # importing it makes a folder for logs
        pytest.skip("needs textgrad (extra textgrad)")
    given: dict[str, Any] = {"engine": endpoint, "validation_rows": 2, "with_team": False}
    given |= {"max_steps": 2, "train_batch_size": 1}
    found = run_baseline("textgrad", team, ROWS, folder=tmp_path, train_rows=TRAIN, **given)
    textgrad = found.systems["textgrad"]
    assert textgrad.facts["system_turns"] == {
        "reader": "Say { { 7 }}.",
        "answerer": "Say { { 7 }}.",
    }
    assert textgrad.facts["engine_calls"] == 2 * (1 + 2 + 2)  # answer, two criticisms, two turns
    assert (textgrad.effort.steps, textgrad.effort.rows) == (2, 2)
    assert "TEXTGRAD_LOG_DIR" not in os.environ


def test_what_is_not_installed_is_named(monkeypatch: Any):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    plan = graph().compile()
    said = [next(iter(open_baseline(n).problems(plan))) for n in ("sft", "textgrad", "lora")]
    assert "pip install 'latentmas[baselines]'" in said[0]
    assert "pip install 'latentmas[textgrad]'" in said[1]
    assert "pip install 'latentmas[peft]'" in said[2]


# --- the command line -------------------------------------------------------------------------


def call(*words: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, list(map(str, words)))
    assert result.exit_code == code, result.output
    return result


def test_the_command_compares_and_resumes(tmp_path: Path):
    graph().save(tmp_path / "team.yaml")
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    words = ("baseline", "single", tmp_path / "team.yaml", "--data", data, "-o", tmp_path / "study")
    told = call(*words, "--limit", 3, "--option", "max_new_tokens=1").stdout
    assert told.startswith("exact, 3 rows\nsystem  trained")
    assert (tmp_path / "study" / "single.md").read_text().startswith("| system | trained |")
    assert r"\toprule" in (tmp_path / "study" / "single.tex").read_text()
    again = call(*words, "--limit", 3, "--option", "max_new_tokens=1", "--json").stdout
    assert json.loads(again)["systems"]["single"]["new_tokens"] == 3
    assert "made from another team" in call(*words, "--limit", 2, code=1).stderr


def test_the_command_lists_baselines_and_their_options():
    listed = call("baselines").stdout
    assert {line.split()[0] for line in listed.splitlines()} == set(baselines.names())
    assert "rank (default: None): Rank." in call("baselines", "lora").stdout
    assert json.loads(call("baselines", "--json").stdout)["baselines"]
    assert "did you mean 'lora'" in call("baselines", "lore", code=2).stderr


def test_the_command_names_all_mistakes(tmp_path: Path):
    graph().save(tmp_path / "team.yaml")
    (tmp_path / "rows.jsonl").write_text('{"passage": "p", "question": "q"}\n')
    words = ("baseline", "lora", tmp_path / "team.yaml", "--data", tmp_path / "rows.jsonl")
    said = call(*words, "-o", tmp_path / "study", "--option", "rank=0", code=1).stderr
    assert "2 problems:" in said and "lacks the field 'answer'" in said
    assert "name rows" in call(*words[:3], "-o", tmp_path, code=2).stderr


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
    with pytest.raises(LatentMASError, match="learning_rate is 0; give a number above 0"):
        compare("lora", graph(), tmp_path, learning_rate=0)
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
        assert not field.is_required() and field.description, option
    with pytest.raises(TypeError, match="takes no argument 'colour'"):
        open_baseline(name, colour="red")


@pytest.mark.parametrize("name", baselines.names())
def test_a_baseline_declares_a_graph_for_the_same_samples(name: str, tmp_path: Path):
    options: dict[str, Any] = {}
    if name == "looplm":
        options = {"source": looped_model(tmp_path), "trust_remote_code": True}
    for team in (graph(), lm.templates.mixture(experts={"a": TINY, "b": TINY}, summarizer=TINY)):
        plan = team.compile()
        made = open_baseline(name, **options).graph(plan).compile()
        assert set(made.graph.inputs) == set(plan.graph.inputs)
        assert any(isinstance(step, Decode) for step in made.steps)
        assert plan == team.compile()
