"""Measured costs: counts are those of runs, and prices those of the user's table."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

import latentmas as lm
from latentmas.cli.app import app
from latentmas.errors import DataError, LatentMASError, UnknownNameError
from latentmas.studies import CostReport, PriceTable, measure_costs, parameter_counts
from latentmas.studies.prices import named_in
from tests.teams import load64, sequential, tiny

ROWS = [{"question": f"What is {n} + {n}?"} for n in range(3)]


@pytest.fixture(scope="module")
def system() -> lm.System:
    return sequential(max_new_tokens=4).compile().load()


@pytest.fixture(scope="module")
def report(system: lm.System) -> CostReport:
    prices = PriceTable.load(None)
    return measure_costs(
        system, ROWS, rounds=[1, 2], repeats=2, twin_tokens=5, max_new_tokens=3, prices=prices
    )


def test_amounts_are_those_of_runs(system: lm.System, report: CostReport):
    assert [(row.rounds, row.system) for row in report.rows] == [
        *[(1, "team"), (1, "twin")],
        *[(2, "team"), (2, "twin")],
    ]
    twin = system.text_twin(max_new_tokens=5)
    for rounds in (1, 2):
        runs = {
            "team": system.run(ROWS, rounds=rounds, max_new_tokens=3),
            "twin": twin.run(ROWS, rounds=rounds, max_new_tokens={system.plan.output: 3}),
        }
        for name, run in runs.items():
            row = report.row(rounds, name)
            for field in ("new_tokens", "latent_steps", "prompt_tokens"):
                counted = sum(getattr(record, field) for record in run.accounting)
                assert getattr(row, field) == pytest.approx(counted / len(ROWS)), (name, field)
            assert 0 < row.fastest <= row.seconds <= row.slowest
            assert row.memory is not None
    assert report.row(2).latent_steps == 2 * 9 - 3  # the answer takes no latent steps
    assert report.row(2, "twin").latent_steps == 0


def test_ratios_are_the_twins_over_the_teams(report: CostReport):
    team, twin = report.row(2), report.row(2, "twin")
    ratios = report.ratios(2)
    assert ratios["new_tokens"] == twin.new_tokens / team.new_tokens > 1
    assert ratios["seconds"] == twin.seconds / team.seconds
    with pytest.raises(LatentMASError, match=r"team at 3 rounds was not measured; there are: team"):
        report.row(3)


def test_estimates_are_those_of_explain_at_the_measured_tokens(
    system: lm.System, report: CostReport
):
    said = system.explain(ROWS, "cpu", rounds=2, max_new_tokens=3)
    assert said.seconds is not None and said.peak_memory is not None and said.weights is not None
    row = report.row(2)
    assert row.estimated_seconds == pytest.approx(said.seconds / len(ROWS))
    assert row.estimated_memory == said.peak_memory - said.weights - said.links


def test_parameters_are_counted_once(system: lm.System):
    found = parameter_counts(system)
    links = sum(p.numel() for p in system.parameters())
    models = {id(b): b.model for b in system.agent_backbones.values()}
    assert len(models) == 2  # planner and solver share one
    assert found.backbones == sum(model.num_parameters() for model in models.values())
    assert found.trainable == found.links == links
    assert found.total == links + found.backbones
    assert found.share == pytest.approx(links / found.total)
    for parameter in system.link(system.link_ids()[0]).parameters():
        parameter.requires_grad_(False)
    one = sum(p.numel() for p in system.link(system.link_ids()[0]).parameters())
    assert parameter_counts(system).trainable == links - one
    system.requires_grad_(True)


def test_adapters_are_counted_apart():
    system = load64(sequential())
    before = parameter_counts(system)
    system.add_adapter("solver", lm.LoRA(r=2))
    after = parameter_counts(system)
    (adapter,) = system.agent_adapters().values()
    assert after == replace(before, adapters=adapter.n_parameters)
    adapter.requires_grad_(True)  # as a training does
    assert parameter_counts(system).trainable == before.trainable + adapter.n_parameters


# --- prices -----------------------------------------------------------------------------------


def test_a_processor_has_no_price_unless_one_is_given(report: CostReport, tmp_path: Path):
    assert {row.price for row in report.rows} == {None}
    assert any("No price: cpu is not in the table" in note for note in report.notes)
    assert "price" not in str(report).splitlines()[0]
    own = tmp_path / "prices.yaml"
    own.write_text("currency: EUR\ndevices:\n  cpu: 3.6\n")
    found = measure_costs(team_of_one(), ROWS, repeats=1, prices=own, max_new_tokens=1)
    for row in found.rows:
        assert row.price == pytest.approx(row.seconds * 0.001)
    assert "price of 1000 (EUR)" in str(found).splitlines()[0]
    assert any("3.6 EUR per hour" in note for note in found.notes)


def team_of_one() -> lm.System:
    graph = lm.Graph("one", inputs=["question"], rounds=1)
    graph.add_agent("writer", tiny("llama", 16), prompt="{{ question }}")
    return graph.output("writer").compile().load()


def test_the_table_that_ships_names_date_and_source_of_each_price():
    table = PriceTable.load()
    assert table.prices and "cpu" not in table.prices
    assert all(price.date and "http" in price.source for price in table.prices.values())


def test_devices_are_found_by_words_of_their_names():
    names = ["a100", "h100", "l4", "rtx4090", "h100 nvl"]
    devices = {
        "NVIDIA H100 80GB HBM3": "h100",
        "NVIDIA H100 NVL": "h100 nvl",
        "NVIDIA A100-SXM4-80GB": "a100",
        "NVIDIA GeForce RTX 4090": "rtx4090",
        "NVIDIA L4": "l4",
        "NVIDIA L40S": None,
        "NVIDIA GH1000": None,
        "cpu": None,
    }
    assert {device: named_in(device, names) for device in devices} == devices


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("devices: {h100: -1}", "price of h100 is -1, not a number of 0 or more"),
        ("devices: {h100: true}", "price of h100 is True"),
        ("devices: {h100: {per_hour: 1, colour: red}}", "h100 has the unknown key 'colour'"),
        ("machines: {}", "'devices'"),
        ("devices: {h100: 1}\nyear: 2026", "the key 'year' is unknown"),
        ("- 1", "is not a table of prices"),
    ],
)
def test_a_table_of_prices_that_is_wrong_is_refused(tmp_path: Path, text: str, problem: str):
    path = tmp_path / "prices.yaml"
    path.write_text(text)
    with pytest.raises(DataError, match=problem):
        PriceTable.load(path)


# --- refusals and files -----------------------------------------------------------------------


def test_what_cannot_be_measured_is_refused_before_anything_runs(system: lm.System):
    with pytest.raises(DataError, match="no rows to measure"):
        measure_costs(system, [])
    with pytest.raises(LatentMASError, match="repeats is 0; give a whole number of at least 1"):
        measure_costs(system, ROWS, repeats=0)
    with pytest.raises(LatentMASError, match="rounds is empty"):
        measure_costs(system, ROWS, rounds=[])
    with pytest.raises(UnknownNameError, match="hardware"):
        measure_costs(system, ROWS, hardware="h999")


def test_tables_are_written_in_each_format(report: CostReport, tmp_path: Path):
    table = report.write(tmp_path / "costs.md").read_text()
    assert table.startswith("| rounds | system | seconds | CPU seconds | tokens | latent steps |")
    assert table.count("| twin / team |") == 2
    assert r"\toprule" in report.write(tmp_path / "costs.tex").read_text()
    plain = json.loads(report.write(tmp_path / "costs.json").read_text())
    assert plain["rows"][0]["system"] == "team"
    assert plain["twin_over_team"]["2"]["new_tokens"] == report.ratios(2)["new_tokens"]
    assert plain["parameters"]["share"] == report.parameters.share
    with pytest.raises(LatentMASError, match=r"must end in \.md, \.tex, \.json or \.txt"):
        report.write(tmp_path / "costs.xls")


def test_the_command_prints_and_writes_the_table(system: lm.System, tmp_path: Path):
    system.save_pretrained(tmp_path / "team")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    words = ["costs", str(tmp_path / "team"), "--data", str(rows), "--limit", "2"]
    words += ["--rounds", "1,2", "--repeats", "1", "--max-new-tokens", "2", "--twin-tokens", "2"]
    done = CliRunner().invoke(app, [*words, "-o", str(tmp_path / "costs.json")])
    assert done.exit_code == 0, done.output
    assert "twin / team" in done.stdout
    plain = json.loads((tmp_path / "costs.json").read_text())
    assert plain["questions"] == 2 and len(plain["rows"]) == 4
    refused = CliRunner().invoke(app, [*words[:4], "--rounds", "1,x"])
    assert refused.exit_code == 2


# --- trainings --------------------------------------------------------------------------------


def test_a_training_notes_what_it_cost(tmp_path: Path):
    system = sequential().compile().load()
    rows = [row | {"answer": "7"} for row in ROWS]
    config = lm.OuterConfig(str(tmp_path), max_steps=1, use_cpu=True, progress=False)
    lm.OuterTrainer(system, config, train_dataset=rows).train()
    cost = system.history[-1].manifest["cost"]
    assert cost["cpu_seconds"] > 0 and cost["memory"] > 0
    log = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert log[-1]["train_peak_mib"] > 0 and log[-1]["train_cpu_seconds"] > 0
    page = lm.training_report(tmp_path).read_text()
    assert "peak memory above the start, MiB" in page
