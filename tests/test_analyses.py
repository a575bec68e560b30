"""Analyses: known answers by construction, finite differences as the oracle, controls at chance."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

import latentmas as lm
from latentmas.cli.app import app
from latentmas.errors import DataError, LatentMASError, UnknownNameError
from latentmas.runtime import TrainingRecord
from latentmas.studies import AnalysisReport, analyse
from latentmas.studies.analyses import analyses
from latentmas.studies.analyses._statistics import mean_of, probe
from latentmas.studies.analyses.gradients import DIRECTIONS, random_direction
from latentmas.training.losses.outer import OuterLoss
from tests.teams import exact_norms, load64, sequential, tiny

ANSWERS = ["ab", "cd", "ef", "gh"]
ROWS = [{"question": f"Say {n} again.", "answer": ANSWERS[n % 4]} for n in range(8)]
"""All of one length, so that a batch has them in this order."""
EDGE = "planner->critic"


@pytest.fixture(scope="module")
def system() -> lm.System:
    return sequential(rounds=2).compile().load()


def pair(link: str = "recursive", latent_steps: int = 2) -> lm.Graph:
    """Two agents that send each other messages, over two rounds."""
    graph = lm.Graph("pair", inputs=["question"], rounds=2, latent_steps=latent_steps)
    reads = "{{ question }}{% if back %}{{ back }}{% endif %}"
    graph.add_agent("planner", tiny("llama", 16), prompt=reads, inner=link)
    graph.add_agent("solver", tiny("llama", 16), prompt="{{ note }} {{ question }}", inner=link)
    graph.connect("planner", "solver.note", link=link)
    graph.feedback("solver", "planner.back", link=link)
    return graph.output("solver")


FIRST = "round1.planner->solver"


def gold(system: lm.System, message_BKD: Tensor, rows: Sequence[dict[str, Any]]) -> Tensor:
    """Messages of the answers' own embeddings; the rest is not sent."""
    critic = system.backbone_of("critic")
    said_BKD = torch.zeros_like(message_BKD)
    for row, sample in enumerate(rows):
        ids = critic.tokenizer(sample["answer"], add_special_tokens=False).input_ids
        said_BKD[row, : len(ids)] = critic.embed(torch.tensor(ids))
    return said_BKD


@pytest.fixture(scope="module")
def told(system: lm.System) -> AnalysisReport:
    """The critic is told the answer from the second round on."""

    def edit(name: str, message_BKD: Tensor) -> Tensor:
        return message_BKD if name.startswith("round1") else gold(system, message_BKD, ROWS)

    with system.tap(EDGE, edit):
        return analyse(system, ROWS, what=["distances", "meaning"])


def measured(report: AnalysisReport, round: int, measure: str) -> dict[str, Any]:
    for one in report.findings["distances"].data["measured"]:
        if (one["edge"], one["round"], one["measure"]) == (EDGE, round, measure):
            return dict(one)
    raise AssertionError("not measured")


# --- distances --------------------------------------------------------------------------------


def test_a_message_that_is_the_answer_is_at_distance_zero(told: AnalysisReport):
    cosine, distance = (measured(told, 2, name) for name in ("cosine", "distance"))
    assert cosine["own_by_question"] == pytest.approx([1.0] * 8)
    assert distance["own_by_question"] == pytest.approx([0.0] * 8, abs=1e-5)
    assert cosine["others"]["mean"] < 0.9 and distance["others"]["mean"] > 0.3
    assert cosine["difference"]["low"] > 0 > distance["difference"]["high"]


def test_a_random_message_is_no_nearer_to_its_answer(told: AnalysisReport):
    cosine = measured(told, 1, "cosine")["difference"]
    assert cosine["low"] <= 0.05 and abs(cosine["mean"]) < 0.1


def test_cosines_and_controls_are_those_of_plain_loops(system: lm.System, told: AnalysisReport):
    message_NKD = system.run(ROWS, record=("messages",)).messages[f"round1.{EDGE}"]
    critic = system.backbone_of("critic")

    def cosine(x_KD: Tensor, answer: str) -> float:
        best = []
        for text in (answer, f" {answer}"):
            ids = critic.tokenizer(text, add_special_tokens=False).input_ids
            tokens = [critic.embed(torch.tensor(id)).double() for id in ids]
            near = [
                max(float(torch.cosine_similarity(x_D.double(), e_D, dim=0)) for x_D in x_KD)
                for e_D in tokens
            ]
            best.append(sum(near) / len(near))
        return max(best)

    found = measured(told, 1, "cosine")
    own = [cosine(x, row["answer"]) for x, row in zip(message_NKD, ROWS, strict=True)]
    assert found["own_by_question"] == pytest.approx(own, abs=1e-5)
    others = [
        np.mean([cosine(x, other["answer"]) for other in ROWS if other["answer"] != row["answer"]])
        for x, row in zip(message_NKD, ROWS, strict=True)
    ]
    assert found["others_by_question"] == pytest.approx(others, abs=1e-5)


def test_the_verdict_says_what_was_found(told: AnalysisReport):
    verdict = told.findings["distances"].verdict
    (second,) = [line for line in verdict if line.startswith(f"{EDGE}, round 2:")]
    assert "cosine 1.000 to its own answer" in second
    assert second.endswith("8 questions: nearer to its own answer.")
    (trend,) = [line for line in verdict if line.startswith(f"{EDGE}, round 1 to 2")]
    assert trend.endswith("messages approach the answer.")


# --- meaning ----------------------------------------------------------------------------------


def test_the_answer_is_read_where_the_message_says_it(told: AnalysisReport):
    found = {(one["edge"], one["round"]): one for one in told.findings["meaning"].data["messages"]}
    one = found[EDGE, 2]
    assert one["own"] == 1.0 and one["difference"]["low"] > 0.5
    assert one["said"][:3] == ["a b", "c d", "e f"]
    assert one["probe"]["right"] == one["probe"]["n"] == 8
    assert one["probe"]["shuffled"] < 0.5 and one["probe"]["p_value"] < 0.05


def test_a_probe_finds_what_is_there_and_nothing_else():
    draw = np.random.default_rng(0)
    labels = [ANSWERS[n % 4] for n in range(60)]
    centres = draw.normal(size=(4, 20))
    apart = np.stack([centres[n % 4] for n in range(60)]) * 10 + draw.normal(size=(60, 20))
    found = probe(apart, labels)
    assert found is not None
    assert (found.right, found.n, found.classes, found.chance) == (60, 60, 4, 0.25)
    assert found.p_value == pytest.approx(1 / 101)
    assert abs(found.shuffled - 0.25) < 0.06
    noise = probe(draw.normal(size=(60, 20)), labels)
    assert noise is not None
    assert abs(noise.accuracy - 0.25) < 0.2 and noise.p_value > 0.05


def test_a_probe_leaves_out_classes_that_occur_once():
    x_ND = np.eye(8)
    assert probe(x_ND, list("abcdefgh")) is None
    assert probe(x_ND, list("aaaaaaab")) is None
    found = probe(x_ND, list("aaabbbcd"))
    assert found is not None and (found.n, found.classes) == (6, 2)


def test_an_interval_covers_the_mean_of_questions():
    found = mean_of([0.0, 1.0, 2.0, 3.0])
    assert found.mean == 1.5 and 0 < found.low < 1.5 < found.high < 3
    assert (mean_of([-1.0, 1.0]).sign, mean_of([1.0, 2.0]).sign, mean_of([-1.0]).sign) == (0, 1, -1)


# --- gradients --------------------------------------------------------------------------------


def sides(report: AnalysisReport) -> dict[str, dict[str, Any]]:
    return {side["links"]: side for side in report.findings["gradients"].data["sides"]}


def gains_of(report: AnalysisReport) -> dict[tuple[str, str], float]:
    (side,) = sides(report).values()
    return {(one["pushed"], one["changed"]): one["mean"] for one in side["gains"]}


def test_gains_are_finite_differences(monkeypatch: pytest.MonkeyPatch):
    exact_norms(monkeypatch)
    team, rows, size = load64(pair()), ROWS[:2], 1e-4
    found = gains_of(analyse(team, rows, what="gradients"))

    def messages(number: int, sign: float) -> dict[str, Tensor]:
        def edit(name: str, message_BKD: Tensor) -> Tensor:
            if name != FIRST:
                return message_BKD
            generator = torch.Generator().manual_seed(number)
            return message_BKD + sign * size * random_direction(message_BKD, generator)

        options: dict[str, Any] = {"max_new_tokens": 1, "executor": "reference"}
        return team.run(rows, record=("messages",), edit_message=edit, **options).messages

    plain = messages(0, 0.0)
    ends = [(messages(number, 1), messages(number, -1)) for number in range(DIRECTIONS)]
    later = ["round1.solver->planner", "round2.planner->solver"]
    for name in later:
        changes = [(above[name] - below[name]) / (2 * size) for above, below in ends]
        ratios = [x.flatten(1).norm(dim=1) / plain[name].flatten(1).norm(dim=1) for x in changes]
        gain_B = torch.stack(ratios).square().mean(dim=0).sqrt()
        assert found[FIRST, name] == pytest.approx(float(gain_B.mean()), rel=1e-5), name
        assert found[FIRST, name] > 1e-6
    assert found["round2.planner->solver", FIRST] == 0  # nothing flows back in time


def test_gradient_norms_are_finite_differences(monkeypatch: pytest.MonkeyPatch):
    exact_norms(monkeypatch)
    team, row, size = load64(pair(latent_steps=1)), ROWS[0], 1e-4
    (side,) = sides(analyse(team, [row, row], what="gradients")).values()
    loss = OuterLoss(team, team.plan)

    def value(place: int, sign: float) -> float:
        def watch(passing: Any, content: Any) -> Any:
            if passing.name == FIRST:
                step = torch.zeros_like(content)
                step.view(-1)[place] = sign * size
                content = content + step
            return content

        loss.watch = watch
        with torch.no_grad():
            return float(loss([row])["loss"])

    slopes = [(value(place, 1) - value(place, -1)) / (2 * size) for place in range(16)]
    assert side["gradient_norms"][FIRST]["mean"] == pytest.approx(math.hypot(*slopes), rel=1e-5)


def test_nothing_passes_a_link_of_zeros():
    team = sequential(rounds=2, link="linear", latent_steps=1).compile().load()
    outer = next(step.outer for step in team.plan.steps if step.output == f"round1.{EDGE}")
    with torch.no_grad():
        for weight in team.link(outer).parameters():
            weight.zero_()
    report = analyse(team, ROWS[:2], what="gradients")
    (side,) = sides(report).values()
    feedback = "round1.solver->planner"  # reaches the answer through the critic alone
    assert side["gradient_norms"][feedback]["mean"] == 0
    assert gains_of(report)[feedback, "answer"] == 0
    assert side["gradient_norms"]["round2.critic->solver"]["mean"] > 0


def test_trained_links_stand_beside_untrained_ones():
    start = sides(analyse(pair().compile().load(), ROWS[:2], what="gradients"))["given"]
    team = pair().compile().load()
    with torch.no_grad():
        for weight in team.parameters():
            weight.add_(0.05 * torch.randn_like(weight))
    team.history.append(TrainingRecord("outer", {}, [], {}))
    report = analyse(team, ROWS[:2], what="gradients")
    both = sides(report)
    assert list(both) == ["trained", "untrained"]
    assert both["untrained"]["gradient_norms"] == start["gradient_norms"]
    assert both["trained"]["gradient_norms"] != start["gradient_norms"]
    verdict = report.findings["gradients"].verdict
    assert [line.split(" links")[0] for line in verdict] == [*["trained"] * 2, *["untrained"] * 2]


def test_half_precision_teams_through_the_vocabulary_are_analysed():
    team = pair("soft_token").compile().load(dtype="bfloat16")
    report = analyse(team, ROWS[:4])
    assert set(report.findings) == {"distances", "gradients", "meaning"}
    assert all(math.isfinite(gain) for gain in gains_of(report).values())
    assert gains_of(report)[FIRST, "answer"] > 0


# --- files, refusals, the command -------------------------------------------------------------


def test_everything_is_written(tmp_path: Path):
    report = analyse(pair().compile().load(), ROWS[:4], output=tmp_path)
    plain = json.loads((tmp_path / "analysis.json").read_text())
    assert list(plain["findings"]) == ["distances", "gradients", "meaning"]
    assert plain["questions"] == 4 and plain["rounds"] == 2
    page = (tmp_path / "analysis.html").read_text()
    table = (tmp_path / "analysis.md").read_text()
    for finding in report.findings.values():
        assert finding.title in page and finding.title in table
        assert all(line in table for line in finding.verdict)
    heads = [line for line in table.splitlines() if line.startswith("| links")]
    assert heads[0].startswith(r"| links | edge | round | \|dL/dm\| |")
    pictures = sorted(path.stem for path in tmp_path.glob("*.svg"))
    assert pictures == sorted(path.stem for path in tmp_path.glob("*.png"))
    assert "gradients-gradient-norm-at-each-message" in pictures
    for path in tmp_path.glob("*.svg"):
        assert ElementTree.parse(path).getroot().tag.endswith("svg")
    assert "planner-&gt;solver" in (tmp_path / "distances-cosine-to-the-answer.svg").read_text()


def test_what_cannot_be_analysed_is_refused(system: lm.System):
    with pytest.raises(DataError, match="needs at least 2 rows, found 1"):
        analyse(system, ROWS[:1])
    with pytest.raises(DataError, match=r"sample 1 .*answer"):
        analyse(system, [ROWS[0], {"question": "?"}])
    with pytest.raises(UnknownNameError, match="did you mean 'meaning'"):
        analyse(system, ROWS, what="meanin")
    with pytest.raises(LatentMASError, match="what is empty"):
        analyse(system, ROWS, what=[])
    same = [row | {"answer": "same"} for row in ROWS]
    with pytest.raises(DataError, match="all questions have the same answer"):
        analyse(system, same, what="distances")
    with pytest.raises(LatentMASError, match="sends no latent messages"):
        analyse(system.text_twin(max_new_tokens=1), ROWS, what="meaning")


def test_an_analysis_is_found_by_the_name_of_its_file():
    assert analyses.names() == ["distances", "gradients", "meaning"]
    for name in analyses.names():
        kind = analyses.get(name)
        assert kind.title and kind.summary.endswith(".")


def test_the_command_prints_verdicts_and_writes_a_folder(system: lm.System, tmp_path: Path):
    system.save_pretrained(tmp_path / "team")
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    words = ["analyse", str(tmp_path / "team"), "--data", str(rows), "--limit", "4"]
    words += ["--what", "distances,meaning", "--rounds", "1", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "1 round, 4 questions" in done.stdout
    assert "What messages say" in done.stdout
    assert (tmp_path / "out" / "analysis.html").exists()
