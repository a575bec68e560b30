"""Reports of runs and trainings: their numbers are the run's, the page stands alone."""

from __future__ import annotations

import dataclasses
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

import latentmas as lm
from latentmas.evaluation import evaluate
from latentmas.runtime import LatentReading, RunRecord, RunResult, StepRecord, StepTimes, System
from latentmas.viz import DepthMap, report_run
from tests.gallery import random_plan
from tests.teams import QUESTIONS, load64, of_template, tiny

HOSTILE = "</script></title><img src=x onerror=alert(1)>\n{{ x }} & \"'\x00\x1b ]]> -->"
REPORT = ("report",)


@pytest.fixture(scope="module")
def team() -> System:
    return load64(of_template("mixture", "llama"))


@pytest.fixture(scope="module")
def run(team: System) -> RunResult:
    return team.run(QUESTIONS, record=("report", "messages", "states"))


@pytest.fixture(scope="module")
def twin(team: System) -> RunResult:
    graph = lm.Graph.from_spec(team.plan.graph).as_text(max_new_tokens=4)
    return System.load(graph.compile(), reuse=team).run(QUESTIONS, record=REPORT)


def record_of(result: RunResult) -> RunRecord:
    assert result.record is not None
    return result.record


def reading(result: RunResult, name: str) -> LatentReading:
    return next(r for r in record_of(result).readings if r.name == name)


# --- what is recorded -------------------------------------------------------------------------


def test_states_are_read_through_the_vocabulary_head(team, run):
    for name, h_BKD in run.states.items():
        backbone = team.backbone_of(name.partition(".")[2])
        probability = backbone.model.lm_head(h_BKD.to(backbone.dtype)).softmax(dim=-1)
        best = probability.max(dim=-1)
        for row, steps in enumerate(reading(run, name).nearest):
            for k, near in enumerate(steps):
                assert near[0][1] == pytest.approx(float(best.values[row, k]), rel=1e-4)
                token = backbone.tokenizer.decode([int(best.indices[row, k])])
                assert near[0][0] == token or "\ufffd" in token
                assert [p for _, p in near] == sorted((p for _, p in near), reverse=True)


def test_messages_are_read_among_the_receivers_embeddings(team, run):
    for name, message_BKD in run.messages.items():
        backbone = team.backbone_of(name.rpartition("->")[2])
        table_VD = backbone.embed(torch.arange(backbone.planned.info.vocab_size))
        cosine = torch.nn.functional.cosine_similarity(
            message_BKD[:, :, None].double(), table_VD.double(), dim=-1
        )
        for row, steps in enumerate(reading(run, name).nearest):
            for k, near in enumerate(steps):
                wanted = cosine[row, k].topk(len(near)).values
                assert [c for _, c in near] == pytest.approx(wanted.tolist(), abs=1e-5)


def test_norms_and_cosines_are_those_of_the_latents(team, run):
    h_BKD = run.states["round2.math"]
    found = reading(run, "round2.math")
    fed = team.link("inner.math").apply_to(h_BKD)
    assert found.norms == pytest.approx(fed.norm(dim=-1).mean(dim=0).tolist(), rel=1e-5)
    assert found.raw_norms == pytest.approx(h_BKD.norm(dim=-1).mean(dim=0).tolist(), rel=1e-5)
    message = run.messages["round1.math->summarizer"]
    other = run.messages["round3.math->summarizer"]
    found = reading(run, "round1.math->summarizer")
    assert found.norms == pytest.approx(message.norm(dim=-1).mean(dim=0).tolist(), rel=1e-5)
    assert found.agent == "summarizer" and found.raw_norms is None
    assert found.embedding_norm == reading(run, "round1.summarizer").embedding_norm
    cosine = torch.nn.functional.cosine_similarity(message, other, dim=-1).mean()
    grid = record_of(run).cosines["math->summarizer"]
    assert grid[0][2] == grid[2][0] == pytest.approx(float(cosine), rel=1e-5)
    assert record_of(run).cosines["summarizer->math"][2] == [None, None, None]  # none in round 3


def test_recording_changes_no_answer_and_keeps_no_tensor(team, run):
    plain, alone = team.run(QUESTIONS), team.run(QUESTIONS, record=REPORT)
    assert plain.texts == alone.texts == run.texts
    assert plain.record is None
    assert alone.messages == alone.states == {}
    assert run.messages and run.states


def test_a_record_does_not_depend_on_the_batches(team, run):
    one_by_one = record_of(team.run(QUESTIONS, record=REPORT, batch_size=1))
    whole = record_of(run)
    assert (one_by_one.batches, whole.batches) == (3, 1)
    assert one_by_one.samples == whole.samples == [{"question": text} for text in QUESTIONS]
    for a, b in zip(one_by_one.readings, whole.readings, strict=True):
        assert a.norms == pytest.approx(b.norms, rel=1e-4)
        assert len(a.nearest) == len(b.nearest) == 3
    for name, grid in whole.cosines.items():
        assert one_by_one.cosines[name][0][1] == pytest.approx(grid[0][1], rel=1e-4)


@pytest.mark.parametrize("executor", ["reference", "static", "offload"])
def test_every_executor_records_the_same(team, run, executor):
    """Batches of like length: the samples run in another order than they were given."""
    found = team.run(
        QUESTIONS, record=REPORT, executor=executor, batch_size=2, refill_threshold=0.3
    )
    assert found.executor == executor and found.texts == run.texts
    for a, b in zip(record_of(found).readings, record_of(run).readings, strict=True):
        assert a.norms == pytest.approx(b.norms, rel=1e-4)
        for one, other in zip(a.nearest, b.nearest, strict=True):
            best = [[near[0][1] for near in steps] for steps in (one, other)]
            assert best[0] == pytest.approx(best[1], rel=1e-3)
    for turn in record_of(found).turns:
        assert (turn.prompt_seconds > 0) == (turn.op != "transfer" and turn.within is None)
    again = team.run(QUESTIONS, executor=executor)
    assert again.texts == run.texts and again.record is None


def test_only_the_first_samples_are_read_as_tokens(team):
    found = team.run([f"{QUESTIONS[0]} {i}" for i in range(5)], record=REPORT, batch_size=2)
    assert len(record_of(found).samples) == 3
    assert {len(r.nearest) for r in record_of(found).readings} == {3}


def test_times_tell_prompts_and_shared_batches(team, run):
    turns = {turn.name: turn for turn in record_of(run).turns}
    assert list(turns) == [step.output for step in team.plan.steps]
    assert turns["round1.science"].within == "round1.math"  # one backbone, one batch
    assert turns["round1.code"].within is None
    for name, turn in turns.items():
        assert 0 <= turn.prompt_seconds <= turn.seconds, name
        alone = turn.op != "transfer" and turn.within is None
        assert (turn.prompt_seconds > 0) == alone, name
    apart = record_of(team.run(QUESTIONS[:1], record=REPORT, executor="reference"))
    assert {turn.within for turn in apart.turns} == {None}


def test_an_agent_that_does_not_roll_leaves_no_reading(tmp_path):
    graph = lm.Graph("mute", inputs=["question"], rounds=1, latent_steps=2)
    small = tiny("llama", 16)
    graph.add_agent("a", small, prompt="{{ question }}", latent_steps=0, allow_empty=True)
    graph.add_agent("b", small, prompt="{{ a }} {{ question }}", max_new_tokens=2)
    graph.connect("a", "b")
    result = graph.output("b").compile().load().run(["?"], record=REPORT)
    assert record_of(result).readings == []
    page = Page(result.report(tmp_path / "run.html"))
    assert "norms" not in page.ids and "costs" in page.ids


# --- the page ---------------------------------------------------------------------------------


class Page(HTMLParser):
    """A page whose tags are balanced, with what tests ask of it."""

    EMPTY = frozenset({"meta", "br", "hr", "img", "input", "link", "circle", "line"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.text = path.read_text(encoding="utf-8")
        self.words: list[str] = []
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.tags: Counter[str] = Counter()
        self.attributes: Counter[str] = Counter()
        self._open: list[str] = []
        self.feed(self.text)
        self.close()
        assert self._open == [], f"left open: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_startendtag(tag, attrs)
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        for name, value in attrs:
            self.attributes[name] += 1
            if name == "id":
                self.ids[value or ""] += 1
            if name == "href":
                self.links.append(value or "")

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open.pop() == tag, f"</{tag}> at {self.getpos()}"

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    def stands_alone(self) -> bool:
        """Nothing is loaded, nothing runs, nothing leads away."""
        loads = re.search(r"https?:|//[a-z]|@import|url\((?!#)", self.text)
        runs = {"script", "img", "link", "iframe", "object", "base"} & set(self.tags)
        handlers = {n for n in self.attributes if n.startswith("on")} | (
            {"src", "srcset"} & set(self.attributes)
        )
        return not loads and not runs and not handlers


@pytest.fixture(scope="module")
def page(run, twin, tmp_path_factory) -> Page:
    return Page(run.report(tmp_path_factory.mktemp("report") / "run.html", twin=twin))


def test_the_page_is_whole_and_stands_alone(page):
    assert page.stands_alone()
    assert "default-src &#x27;none&#x27;" in page.text or "default-src 'none'" in page.text
    assert len(page.text.encode()) < 2_000_000
    assert max(page.ids.values()) == 1
    assert [link.removeprefix("#") for link in page.links] == [
        *("answers", "graph", "timeline", "costs", "tokens", "norms", "change")
    ]
    assert set(page.ids) >= {link.removeprefix("#") for link in page.links}
    assert page.tags["table"] == page.tags["caption"] > 10
    assert page.tags["svg"] == page.text.count('role="img"') + page.text.count('aria-hidden="true"')


def test_the_page_shows_every_agent_round_and_edge(page, run):
    words = set(page.words)
    for turn in record_of(run).turns:
        if turn.op != "transfer":
            assert f"round {turn.round} · {turn.agent}" in words
    for name in (*record_of(run).cosines, "sample 1", "sample 3"):
        assert name in words
    for result in run.texts:
        assert result in page.words or "\ufffd" in result or not result.isprintable()


def test_the_page_shows_the_totals_of_run_and_twin(page, run, twin):
    at = page.words.index("prompt positions")
    cells = [word for word in page.words[at : at + 12] if word.strip()]
    for result, cell in ((run, cells[1]), (twin, cells[2])):
        assert cell == f"{sum(r.prompt_tokens for r in result.accounting):,}"
    assert "The text twin" in page.words


def test_a_twin_that_recorded_nothing_still_shows_its_costs(run, twin, tmp_path):
    bare = dataclasses.replace(twin, record=None)
    page = Page(run.report(tmp_path / "run.html", twin=bare))
    assert "twin / run" in page.words
    assert page.words.count("The timeline in numbers") == 1


def cells_after(page: Page, word: str, count: int) -> list[str]:
    at = page.words.index(word)
    return [word for word in page.words[at:] if word.strip()][:count]


def test_the_page_shows_right_answers_and_scores(run, twin, tmp_path):
    gold = [f"gold {HOSTILE}", None, "b"]
    options = {"gold": gold, "scores": [True, None, 0], "twin_scores": [0.25, 1, 1.0]}
    page = Page(run.report(tmp_path / "run.html", twin=twin, **options))
    assert page.stands_alone()
    told = "The run: 1 of 2 right (50.0%). The text twin: mean score 0.750 over 3 samples."
    assert told in page.words
    named = Page(run.report(tmp_path / "named.html", twin=twin, grader=f"by {HOSTILE}", **options))
    assert any(word.startswith(f"{told} Grader: by </script>") for word in named.words)
    heads = ["sample", "asked", "gold answer", "answer", "score", "text twin's answer"]
    assert cells_after(page, "sample", 7) == [*heads, "text twin's score"]
    assert any(word.startswith("gold </script>") for word in page.words)
    assert [page.words.count(text) for text in ("✓ right", "✗ wrong", "0.25")] == [3, 1, 1]
    assert "All answers" not in page.words  # three samples, all of which are shown


def test_all_answers_are_listed_where_the_right_ones_are_known(team, tmp_path):
    result = team.run([f"{QUESTIONS[0]} {i}" for i in range(5)], record=REPORT)
    page = Page(result.report(tmp_path / "run.html", gold=[f"gold {i}" for i in range(5)]))
    assert "All answers" in page.words and "gold 4" in page.words
    assert page.words.count("gold 0") == 2 and "score" not in page.words
    assert "gold 4" not in Page(result.report(tmp_path / "bare.html")).words


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gold": ["a"]}, "gold has 1 entries for 3 answers"),
        ({"scores": [1, 0]}, "scores has 2 entries for 3 answers"),
        ({"scores": [1, 0, 1.5]}, r"scores\[2\] is 1.5; give 0 to 1"),
        ({"scores": [float("nan"), 0, 1]}, r"scores\[0\] is nan"),
        ({"twin_scores": [1, 0, 1]}, "twin_scores requires twin"),
        ({"grader": "math", "gold": ["a", "b", "c"]}, "grader is 'math' without scores"),
    ],
)
def test_right_answers_and_scores_are_checked(run, tmp_path, options, message):
    with pytest.raises(lm.LatentMASError, match=message):
        run.report(tmp_path / "run.html", **options)
    assert not list(tmp_path.iterdir())


def test_an_evaluation_writes_the_page_with_its_marks(team, tmp_path):
    answers = [team.run(QUESTIONS).texts[0], "#", "#"]
    rows = [{"question": q, "answer": a} for q, a in zip(QUESTIONS, answers, strict=True)]
    found = evaluate(team, rows, controls=["twin"], twin_tokens=2, record=REPORT)
    page = Page(found.report(tmp_path / "run.html"))
    assert any(
        word.startswith("The run: 1 of 3 right (33.3%). The text twin: ") for word in page.words
    )
    assert page.words.count("✓ right") == sum(found.right) + sum(found.twin.right)
    with pytest.raises(lm.LatentMASError, match=r'record=\("report",\)'):
        evaluate(team, rows).report(tmp_path / "other.html")


def test_hostile_text_stays_text(tmp_path):
    small = tiny("llama", 16)
    graph = lm.Graph(f"t {HOSTILE}", inputs=["question", "more"], rounds=2, latent_steps=2)
    graph.add_text_source("notes", HOSTILE)
    back = "{% if b %}{{ b }}{% endif %}"
    graph.add_agent("a", small, prompt="{{ notes }} {{ question }}" + back)
    graph.add_agent("b", small, prompt="{{ a }} {{ more }}", max_new_tokens=2)
    graph.connect("notes", "a")
    graph.connect("a", "b", link="text")
    graph.feedback("b", "a", link="text")
    system = graph.output("b").compile().load()
    with system.tap("a->b", lambda name, texts: [HOSTILE for _ in texts]):
        result = system.run([{"question": HOSTILE, "more": "x"}], record=REPORT, max_new_tokens=2)
    result = dataclasses.replace(
        result, texts=[HOSTILE], text_messages={name: [HOSTILE] for name in result.text_messages}
    )
    page = Page(result.report(tmp_path / "run.html", twin=result))
    assert page.stands_alone()
    shown = "".join(c if c.isprintable() or c == "\n" else "\ufffd" for c in HOSTILE)
    assert page.words.count(shown) >= 3
    assert "texts" in page.ids


def test_a_run_without_a_record_says_what_to_do(team, run, tmp_path):
    with pytest.raises(lm.LatentMASError, match=r'record=\("report",\)'):
        team.run(QUESTIONS[:1]).report(tmp_path / "run.html")
    with pytest.raises(lm.LatentMASError, match="twin has 1 answers and the run 3"):
        run.report(tmp_path / "run.html", twin=team.run(QUESTIONS[:1]))
    with pytest.raises(lm.LatentMASError, match="messages, states, report"):
        team.run(QUESTIONS[:1], record=("reports",))
    assert not list(tmp_path.iterdir())


def large() -> RunResult:
    """Forty agents, three rounds, 64 latent steps, tokens as long as they come."""
    plan = random_plan(40, 2).replace(rounds=3, latent_steps=64)
    near = [("<&>" * 20, 0.123456)] * 5
    readings = [
        LatentReading(
            name=step.output,
            round=step.round,
            agent=step.agent,
            norms=[1.0] * 64,
            embedding_norm=1.0,
            raw_norms=None if step.op == "transfer" else [1.0] * 64,
            nearest=[[near] * 64] * 3,
        )
        for step in plan.steps
        if step.op != "decode"
    ]
    record = RunRecord(
        plan=plan,
        samples=[{"question": "long " * 5000}] * 3,
        turns=[StepTimes(s.round, s.agent, s.op, s.output, 0.1, 0.05) for s in plan.steps],
        readings=readings,
        cosines={r.name.partition(".")[2]: [[0.5] * 3] * 3 for r in readings},
        batches=1,
        devices={"wide": "cpu", "slim": "cpu"},
    )
    turns = [StepRecord(s.round, s.agent, s.op, 3, 0.1, 5, 64, 0) for s in plan.turns()]
    text_messages = {s.output: ["word " * 5000] * 3 for s in plan.turns() if s.op == "decode"}
    return RunResult(
        ["x " * 9000] * 3, [[]] * 3, text_messages=text_messages, accounting=turns, record=record
    )


def test_a_large_run_stays_under_two_megabytes(tmp_path):
    page = Page(report_run(large(), tmp_path / "run.html", twin=large()))
    assert len(page.text.encode()) < 2_000_000
    assert any("keep the page small" in word for word in page.words)
    assert page.stands_alone()


# --- trainings --------------------------------------------------------------------------------


def write_log(folder: Path, entries: list[dict[str, object]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    (folder / "metrics.jsonl").write_text(lines)
    return folder


def entries(count: int = 30) -> list[dict[str, object]]:
    found: list[dict[str, object]] = [
        {
            "step": n,
            "loss": 5 / n,
            "grad_norm": 1.0,
            "learning_rate": 1e-3,
            **{f"grad_norm/outer.a{i}->b<{i}>.s": 10.0 ** (-n % 5) for i in range(8)},
            "loss/round1": 6 / n,
            "epoch": n / count,
        }
        for n in range(1, count + 1)
    ]
    found[4]["loss"] = float("nan")
    found.append({"step": count, "eval_loss": 1.0, "eval_exact_match": 0.25, "eval_runtime": 9.0})
    return [*found, {"step": count, "train_runtime": 12.5, "train_loss": 1.5}]


def test_a_training_shows_curves_and_depths(tmp_path):
    write_log(tmp_path / "outer", entries())
    grid = DepthMap([1, 2, 3], {"trained at 1": [0.3, 0.3, 0.3], "at <3>": [0.3, 0.6, 0.99]})
    assert DepthMap.load(grid.save(tmp_path / "depths.json")) == grid
    page = Page(lm.training_report(tmp_path, png=tmp_path / "png"))
    assert page.stands_alone()
    assert page.text == (tmp_path / "report.html").read_text()
    titles = {"Loss", "Exact match", "Learning rate", "Loss after each round"}
    titles |= {"Gradient norm of each link (1)", "Gradient norm of each link (2)"}
    assert titles <= set(page.words)
    assert "outer.a0->b<0>.s" in page.words and "0.990" in page.words
    assert not {"runtime", "epoch", "Runtime"} & set(page.words)
    pictures = {path.name for path in (tmp_path / "png").iterdir()}
    assert "outer-01-loss.png" in pictures and f"{tmp_path.name}-depths.png" in pictures
    assert len(pictures) == page.tags["figure"] + 1
    for path in (tmp_path / "png").iterdir():
        assert path.read_bytes().startswith(b"\x89PNG")


def test_points_are_the_numbers_of_the_log(tmp_path):
    """The highest loss stands above the lowest, the last one at the right."""
    log = [{"step": n, "loss": loss} for n, loss in ((1, 4.0), (2, 1.0), (3, 2.0))]
    page = Page(lm.training_report(write_log(tmp_path, log)))
    found = re.search(r'<polyline class="curve" points="([^"]+)"', page.text)
    assert found
    (x1, y1), (x2, y2), (x3, y3) = (
        tuple(map(float, point.split(","))) for point in found[1].split()
    )
    assert x1 < x2 < x3 and x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 < y3 < y2 and (y2 - y1) / (y2 - y3) == pytest.approx(3, rel=0.02)


def test_a_log_that_went_on_after_a_crash_counts_each_step_once(tmp_path):
    log = [{"step": n, "loss": 1.0} for n in (1, 2, 3, 2, 3, 4)]
    log[3]["loss"] = 7.0
    file = write_log(tmp_path, log) / "metrics.jsonl"
    file.write_text(file.read_text().replace('{"step": 3, "loss": 1.0}', '{"step": 3, "lo', 1))
    page = Page(lm.training_report(tmp_path))
    assert "loss" in page.words
    assert page.words[page.words.index("loss") + 1 :][:1] == ["4"]
    found = re.search(r'<polyline class="curve" points="([^"]+)"', page.text)
    assert found and len(found[1].split()) == 4


def test_a_training_that_logged_nothing_on_its_way_still_has_a_page(tmp_path):
    page = Page(lm.training_report(write_log(tmp_path, [{"step": 3, "train_runtime": 2.0}])))
    assert "The whole training" in page.words
    assert any("logging_steps" in word for word in page.words)


def test_folders_that_cannot_be_shown_are_named(tmp_path):
    with pytest.raises(lm.DataError, match=r"holds no metrics\.jsonl and no depths\.json"):
        lm.training_report(tmp_path)
    (tmp_path / "metrics.jsonl").write_text('{"loss": 1}\n[]\n{"step": 1, "lo\n')
    with pytest.raises(lm.DataError, match=r"metrics\.jsonl' holds no entry of a training's log"):
        lm.training_report(tmp_path)
    (tmp_path / "metrics.jsonl").unlink()
    for text in ("{", '{"rounds": [1], "accuracy": {"a": ["x"]}}', '{"rounds": [1, 2]}'):
        (tmp_path / "depths.json").write_text(text)
        with pytest.raises(lm.DataError, match=r"depths\.json' is not a depth map"):
            lm.training_report(tmp_path)
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(lm.DataError, match="row 'a' has 1 numbers for 2 depths"):
        DepthMap([1, 2], {"a": [0.5]})
    with pytest.raises(lm.DataError, match=r"\.json or \.png"):
        DepthMap([1], {"a": [0.5]}).save(tmp_path / "depths.svg")


def test_pictures_without_matplotlib_name_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    write_log(tmp_path, entries())
    assert lm.training_report(tmp_path).exists()  # the page needs nothing
    with pytest.raises(lm.LatentMASError, match=r"pip install 'latentmas\[viz\]'"):
        lm.training_report(tmp_path, png=tmp_path / "png")
