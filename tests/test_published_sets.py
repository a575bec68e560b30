"""The published training sets: columns become agents' texts, and loops learn from them."""

from __future__ import annotations

import json
import logging
import sys
import types
from pathlib import Path
from typing import Any

import pytest

import latentmas as lm
from latentmas.errors import DataError, UnknownNameError
from latentmas.training import published_sets, read_published
from tests.teams import of_template
from tests.test_cli import call, words

NAMES = sorted(published_sets)
LEARNS = {
    "Sequential-Math": {"planner": "plan", "critic": "refined_plan", "solver": "answer"},
    "Sequential-Code": {"planner": "plan", "critic": "refined_plan", "solver": "answer"},
    "Distillation-Math": {"expert": "distill_expert", "learner": "distill_learner"},
    "Distillation-Code": {"expert": "distill_expert", "learner": "distill_learner"},
    "Mixture-Math": {"math": "hie_math_expert"},
    "Mixture-Code": {"code": "hie_code_expert"},
    "Mixture-Science": {"science": "hie_science_expert"},
    "Mixture-Summarizer": {
        "math": "hie_math_expert",
        "code": "hie_code_expert",
        "science": "hie_science_expert",
        "summarizer": "hie_summarizer",
    },
    "Mixture-Outer": {
        "math": "hie_math_expert",
        "code": "hie_code_expert",
        "science": "hie_science_expert",
        "summarizer": "answer",
    },
    "Deliberation": {
        "reflector": "deliberation_reflector",
        "toolcaller": "deliberation_toolcaller",
    },
}
"""Agent → column that it learns from."""


def rows_of(name: str, count: int = 3) -> list[dict[str, Any]]:
    """Rows with all documented columns; the texts are made up."""
    columns = published_sets[name].columns
    return [{column: f"{column} {number}" for column in columns} for number in range(count)]


def written(folder: Path, rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_columns_become_texts_of_agents(name: str, tmp_path: Path):
    rows = read_published(name, path=written(tmp_path, rows_of(name)))
    one = published_sets[name]
    assert rows.published is one and len(rows) == 3
    for number, row in enumerate(rows):
        assert {agent: row[agent] for agent in one.texts} == {
            agent: f"{column} {number}" for agent, column in LEARNS[name].items()
        }
        assert row["question"] == f"question {number}"
        assert row.items() >= rows_of(name)[number].items()
    assert all(rows.answer_field in row for row in rows)
    assert set(LEARNS[name].values()) <= set(one.needed) <= set(one.columns)


def test_there_are_ten_sets_with_their_sizes():
    assert set(NAMES) == set(LEARNS)
    assert {name: published_sets[name].rows for name in ("Sequential-Code", "Deliberation")} == {
        "Sequential-Code": 19890,
        "Deliberation": 5000,
    }
    assert all(one.source == f"RecursiveMAS/{name}" for name, one in published_sets.items())


@pytest.mark.parametrize("name", NAMES)
def test_agents_are_those_of_the_template(name: str):
    one = published_sets[name]
    agents = [agent.name for agent in of_template(one.template, "llama").spec().agents]
    assert set(one.texts) <= set(agents) and one.output in agents
    assert one.without_text(agents) == [agent for agent in agents if agent not in one.texts]
    with pytest.raises(DataError, match=r"team's agents are a, b\. Give .* --target agent=column"):
        one.without_text(["a", "b"])


@pytest.mark.parametrize("name", NAMES)
def test_missing_columns_are_listed(name: str, tmp_path: Path):
    one = published_sets[name]
    for column in one.needed:
        rows = rows_of(name)
        del rows[1][column]
        with pytest.raises(DataError) as caught:
            read_published(name, path=written(tmp_path, rows))
        told = str(caught.value)
        assert f"rows.jsonl:2 lacks '{column}'; it has: " in told
        assert f"documented columns of RecursiveMAS/{name}: {', '.join(one.columns)}" in told


def test_empty_texts(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    rows = rows_of("Deliberation")
    rows[0]["deliberation_reflector"] = None
    rows[1]["question"] = " "
    with caplog.at_level(logging.WARNING):
        found = read_published("Deliberation", path=written(tmp_path, rows))
    assert [row["reflector"] for row in found] == ["answer 0", "deliberation_reflector 2"]
    assert "Deliberation: 1 of 3 rows left out for an empty text: 1" in caplog.text
    plans = rows_of("Sequential-Math")
    plans[2]["plan"] = ""
    found = read_published("Sequential-Math", path=written(tmp_path, plans))
    assert [row["planner"] for row in found] == ["plan 0", "plan 1"]
    for row in rows:
        row["question"] = ""
    with pytest.raises(DataError, match="every row has an empty text"):
        read_published("Deliberation", path=written(tmp_path, rows))


def test_the_form_of_the_published_scripts(tmp_path: Path):
    path = tmp_path / "Sequential-Math.json"
    path.write_text(json.dumps({"data": rows_of("Sequential-Math")}))
    rows = read_published("RecursiveMAS/Sequential-Math", path=path, limit=2)
    assert [row["critic"] for row in rows] == ["refined_plan 0", "refined_plan 1"]


def test_unknown_sets_are_corrected():
    with pytest.raises(UnknownNameError, match="did you mean 'Sequential-Math'"):
        read_published("Sequential-Maths")


def test_the_table_of_the_page_is_current():
    page = Path(__file__).parent.parent / "docs" / "how-to" / "benchmarks.md"
    lines = page.read_text(encoding="utf-8").splitlines()
    for name, one in published_sets.items():
        texts = "; ".join(f"{agent}: {', '.join(own)}" for agent, own in one.texts.items())
        assert f"| `{name}` | {one.rows:,} | {one.template} | {texts} |" in lines


# --- training -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["Sequential-Math", "Distillation-Code", "Mixture-Outer", "Deliberation"]
)
def test_a_step_of_every_family(name: str, tmp_path: Path):
    """Inner and outer loop of the matching template learn, each agent from its own text."""
    one = published_sets[name]
    rows = read_published(name, path=written(tmp_path, rows_of(name, 2)))
    system = of_template(one.template, "llama").compile().load(seed=0)
    start = {key: value.clone() for key, value in system.state_dict().items()}
    done = lm.train(
        system,
        rows,
        output_dir=tmp_path / "out",
        loops=["inner", "outer"],
        answer_field=rows.answer_field,
        settings={"outer": {"recipe": "released"}},
        max_steps=1,
        progress=False,
        per_device_train_batch_size=2,
    )
    assert [stage.steps for stage in done.stages] == [1, 1]
    assert all(stage.loss > 0 for stage in done.stages)
    moved = {k.rsplit(".", 2)[0] for k, v in system.state_dict().items() if not v.equal(start[k])}
    assert len(moved) > len(one.texts)
    trainer = lm.InnerTrainer(
        system, lm.InnerConfig(str(tmp_path / "inner"), use_cpu=True), train_dataset=rows
    )
    assert trainer.model.targets == {agent: agent for agent in one.texts}


@pytest.fixture
def team(tmp_path: Path) -> Path:
    return of_template("sequential", "llama").save(tmp_path / "team.yaml")


def _train(*words: object, **options: Any):
    return call("train", *words, "--steps", 1, "--batch-size", 2, **options)


def test_the_command_with_a_file(team: Path, tmp_path: Path):
    data = written(tmp_path, rows_of("Sequential-Math"))
    common = ("--data", data, "--columns", "published:Sequential-Math")
    plan = _train(team, *common, "--output-dir", tmp_path / "a", "--dry-run").stdout
    assert "planner from 'planner'" in plan and "the rows have 'solver'" in plan
    out = ("--output-dir", tmp_path / "b")
    told = _train("inner", team, *common, *out, "--eval-data", data, "--json").stdout
    assert len(json.loads(told)["links"]) == 3
    bare = written(tmp_path, [{"question": "Q", "answer": "A"}], "bare.jsonl")
    common = ("--data", bare, "--columns", "published:Sequential-Math")
    failed = _train("inner", team, *common, "--output-dir", tmp_path / "c", code=1).stderr
    assert "bare.jsonl:1 lacks 'plan', 'refined_plan'; it has: question, answer" in failed


def test_the_command_with_the_hub(team: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = list[Any]()

    def load_dataset(*args: Any, **options: Any) -> list[dict[str, Any]]:
        asked.append((args, options))
        return rows_of("Sequential-Math")

    module = types.SimpleNamespace(load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", module)
    out = ("--output-dir", tmp_path / "out", "--dry-run")
    plan = _train(team, "--data", "hub:RecursiveMAS/Sequential-Math", *out).stdout
    assert plan.startswith("3 rows") and "critic from 'critic'" in plan
    plan = _train(team, "--data", "hub:me/own@v2", *out).stdout
    assert "planner from" not in plan
    revision = published_sets["Sequential-Math"].revision
    assert asked == [
        (("RecursiveMAS/Sequential-Math", None), {"split": "train", "revision": revision}),
        (("me/own", None), {"split": "train", "revision": "v2"}),
    ]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--data", "hub:Sequential-Math"], "--data takes a file or hub:owner/name"),
        (["--data", "x.jsonl", "--columns", "plan"], "--columns takes published:NAME"),
        (["--data", "x.jsonl", "--columns", "published:Deliberations"], "mean 'Deliberation'"),
        (
            ["--data", "hub:RecursiveMAS/Mixture-Math", "--columns", "published:Mixture-Code"],
            "does not fit",
        ),
        (["--data", "hub:me/own", "--columns", "published:Mixture-Code"], "takes a local file"),
    ],
)
def test_usage_errors(options: list[str], told: str, team: Path, tmp_path: Path):
    result = _train("inner", team, *options, "--output-dir", tmp_path / "out", code=2)
    assert told in words(result.stderr)


def test_agents_without_texts_are_named(tmp_path: Path):
    mixture = of_template("mixture", "llama").save(tmp_path / "mixture.yaml")
    data = written(tmp_path, rows_of("Mixture-Math"))
    common = ("--data", data, "--columns", "published:Mixture-Math", "--dry-run")
    done = _train(mixture, *common, "--output-dir", tmp_path / "out")
    assert "has no texts for code, science, summarizer" in words(done.stderr)
    assert "learn from 'answer'" in words(done.stderr)
    other = of_template("distillation", "llama").save(tmp_path / "distillation.yaml")
    failed = _train(other, *common, "--output-dir", tmp_path / "out", code=1).stderr
    assert "the team's agents are expert, learner" in words(failed)
