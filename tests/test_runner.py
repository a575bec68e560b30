"""The runner of evaluations: nothing finished is lost, nothing is run twice."""

from __future__ import annotations

import json
import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import latentmas as lm
from latentmas.errors import DataError, LatentMASError, UnknownNameError
from latentmas.evaluation import (
    CONTROLS,
    Grade,
    Grader,
    Shard,
    evaluate,
    majority_at,
    mean_interval,
    merge_results,
    open_grader,
    paired_difference,
    read_evaluation,
    read_records,
    write_table,
)
from latentmas.evaluation.runner import even_batches
from latentmas.evaluation.sampling import Sampled
from tests.processes import run_alone
from tests.teams import sequential, tiny

COUNT = 10
ROWS = [{"question": f"{n} + 1?", "answer": str(n)} for n in range(COUNT)]
DRAWN: dict[str, Any] = {"do_sample": True, "temperature": 2.0, "batch_size": 3}


def odd(text: str, gold: str) -> bool:
    return len(text) % 2 == 1


@pytest.fixture(scope="module")
def team() -> lm.System:
    return sequential(rounds=1, latent_steps=2, max_new_tokens=4).compile().load()


@pytest.fixture(scope="module")
def whole(team, tmp_path_factory) -> list[dict[str, Any]]:
    """An uninterrupted evaluation, row by row."""
    path = tmp_path_factory.mktemp("whole") / "rows.jsonl"
    evaluate(team, ROWS, grader=odd, controls=["zeroed", "shuffled"], output=path, **DRAWN)
    return plain(path)


def plain(path: Path) -> list[dict[str, Any]]:
    """Rows of a file, without times."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "seconds"} for row in rows]


def test_rows_hold_what_was_asked_and_answered(team, whole):
    assert [(row["system"], row["row"]) for row in whole] == [
        (name, n) for name in ("team", "zeroed", "shuffled") for n in range(COUNT)
    ]
    row = whole[3]
    assert row["sample"] == ROWS[3] and row["gold"] == "3" and row["error"] is None
    assert "<message: 2 rows>" in row["prompt"] and "3 + 1?" in row["prompt"]
    assert row["latent_steps"] == 2 * 2 and row["prompt_tokens"] > 100
    (answer,) = row["answers"]
    assert answer["finish_reason"] in ("stop", "length") and answer["text"] == row["prediction"]
    assert row["new_tokens"] <= 4 and row["right"] is odd(answer["text"], "")
    assert {r["prediction"] for r in whole[:COUNT]} != {r["prediction"] for r in whole[COUNT:]}


@pytest.mark.parametrize("keep", [0, 4, 13, 25, 29])
def test_resuming_gives_the_same_file(team, whole, tmp_path, keep):
    path = tmp_path / "rows.jsonl"
    options: dict[str, Any] = {"grader": odd, "controls": ["zeroed", "shuffled"], "output": path}
    evaluate(team, ROWS, **options, **DRAWN)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:keep]) + lines[keep][:40])  # as a kill leaves it
    ran = list[int]()

    def count(event: object) -> None:
        if type(event).__name__ == "SampleEnd":
            ran.append(event.sample)  # type: ignore[attr-defined]

    found = evaluate(team, ROWS, **options, **DRAWN, resume=True, on_event=count)
    assert plain(path) == whole and COUNT <= len(ran) + keep <= 3 * COUNT + 4
    assert found.row_scores == tuple(row["score"] for row in whole[:COUNT])
    again = evaluate(team, ROWS, **options, **DRAWN, resume=True)
    assert (again.score, again.differences) == (found.score, found.differences)


@pytest.mark.parametrize("keep", [1, 7, 22])
def test_resuming_gives_the_same_answers_in_half_precision(tmp_path, keep):
    """Rounding depends on the rows of a batch there, so whole batches run again."""
    system = (
        sequential(rounds=1, latent_steps=2, max_new_tokens=12).compile().load(dtype="bfloat16")
    )
    rows = [{"question": "x" * (n * 7 % 50) + f"{n}?", "answer": "1"} for n in range(24)]
    path, options = tmp_path / "rows.jsonl", {**DRAWN, "batch_size": 5, "temperature": 5.0}
    evaluate(system, rows, output=path, **options)
    whole, lines = plain(path), path.read_bytes().splitlines(keepends=True)
    draw = random.Random(keep)
    path.write_bytes(b"".join(sorted(draw.sample(lines, keep), key=lines.index)))
    evaluate(system, rows, output=path, **options, resume=True)
    assert plain(path) == whole


def evaluate_until_killed(output: str, graph: str, wanted: int) -> None:
    """Goes on with an evaluation; is killed once so many rows are on disk and more are begun."""
    left = threading.Semaphore(wanted - len(whole_lines(Path(output))) + 1)

    def held(text: str, gold: str) -> bool:
        left.acquire()  # rows beyond the wanted ones are in flight until the end
        return odd(text, gold)

    def kill() -> None:
        while len(whole_lines(Path(output))) < wanted:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    held.__name__ = "odd"
    threading.Thread(target=kill, daemon=True).start()
    controls: Any = ["zeroed", "shuffled"]
    team = lm.Graph.load(graph).compile().load()
    evaluate(team, ROWS, grader=held, controls=controls, output=output, resume=True, **DRAWN)


def test_a_kill_loses_at_most_the_rows_in_flight(team, whole, tmp_path):
    path = tmp_path / "rows.jsonl"
    graph = lm.Graph.from_spec(team.plan.graph).save(tmp_path / "team.yaml")
    for wanted in (4, 13):
        work = "tests.test_runner:evaluate_until_killed"
        assert run_alone(work, str(path), str(graph), wanted)[0] == -signal.SIGKILL
        assert len(whole_lines(path)) >= wanted, "a row that was on disk is gone"
    evaluate(
        team, ROWS, grader=odd, controls=["zeroed", "shuffled"], output=path, resume=True, **DRAWN
    )
    assert plain(path) == whole


def whole_lines(path: Path) -> list[bytes]:
    if not path.exists():
        return []
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def test_shards_merge_to_the_whole(team, whole, tmp_path):
    paths = [tmp_path / f"{i}.jsonl" for i in range(3)]
    for index, path in enumerate(paths):
        shard = Shard(index, 3)
        evaluate(team, ROWS, grader=odd, controls=["zeroed"], output=path, shard=shard, **DRAWN)
    found = merge_results(paths[::-1], tmp_path / "all.jsonl")
    rows = [row for row in whole if row["system"] != "shuffled"]
    assert plain(tmp_path / "all.jsonl") == rows
    alone = evaluate(team, ROWS, grader=odd, controls=["zeroed"], **DRAWN)
    assert (found.score, found.interval) == (alone.score, alone.interval)
    assert found.differences == alone.differences
    with pytest.raises(DataError, match="is not empty"):
        merge_results(paths, tmp_path / "all.jsonl")
    with pytest.raises(DataError, match=r"lacks 3 rows \(1, 4, 7\)"):
        merge_results([paths[0], paths[2]], tmp_path / "part.jsonl")
    with pytest.raises(LatentMASError, match="shard 3/3 does not exist"):
        Shard(3, 3)


def test_a_file_of_other_settings_is_not_continued(team, tmp_path):
    path = tmp_path / "rows.jsonl"
    evaluate(team, ROWS[:2], output=path, max_new_tokens=2)
    with pytest.raises(DataError, match="holds 2 rows of an earlier evaluation; continue it"):
        evaluate(team, ROWS[:2], output=path, max_new_tokens=2)
    with pytest.raises(DataError, match="max_new_tokens was 2, now 3"):
        evaluate(team, ROWS[:2], output=path, max_new_tokens=3, resume=True)
    with pytest.raises(DataError, match="grader was exact, now odd"):
        evaluate(team, ROWS[:2], output=path, max_new_tokens=2, grader=odd, resume=True)
    stricter = open_grader("math", time_limit=1.0)
    graded = tmp_path / "graded.jsonl"
    evaluate(team, ROWS[:2], output=graded, grader="math")
    with stricter, pytest.raises(DataError, match=r"was math, now math\(time_limit=1.0\)"):
        evaluate(team, ROWS[:2], output=graded, grader=stricter, resume=True)
    other = sequential(rounds=1, latent_steps=2, max_new_tokens=4).compile().load(seed=9)
    with pytest.raises(DataError, match="links of team"):
        evaluate(other, ROWS[:2], output=path, max_new_tokens=2, resume=True)
    assert len(list(read_records(path))) == 2
    more = evaluate(team, ROWS[:4], output=path, max_new_tokens=2, resume=True, batch_size=1)
    assert more.rows == 4 and read_evaluation(path).row_scores == more.row_scores
    with pytest.raises(LatentMASError, match="resume needs output"):
        evaluate(team, ROWS, resume=True)


def test_a_file_that_is_not_of_an_evaluation_is_refused(team, tmp_path):
    path = tmp_path / "rows.jsonl"
    for text, why in (("hello\n", "not JSON"), ('{"a": 1}\n', "it lacks"), ("[1]\n", "found list")):
        path.write_text(text)
        with pytest.raises(DataError, match=f"rows.jsonl:1: .*{why}"):
            evaluate(team, ROWS, output=path, resume=True)
        assert path.read_text() == text


def test_one_process_at_a_time_writes(team, tmp_path):
    path = tmp_path / "rows.jsonl"

    def meddle(event: object) -> None:
        if type(event).__name__ == "RunBegin":
            with pytest.raises(DataError, match="another process writes to"):
                evaluate(team, ROWS[:1], output=path, resume=True)

    evaluate(team, ROWS[:1], output=path, on_event=meddle)


def test_failed_rows_are_run_again(team, tmp_path):
    path, broken = tmp_path / "rows.jsonl", {"now": True}

    def picky(text: str, gold: str) -> bool:
        if broken["now"] and gold == "1":
            raise ZeroDivisionError
        return True

    options: dict[str, Any] = {"grader": picky, "output": path, "on_error": "keep"}
    found = evaluate(team, ROWS[:3], **options)
    assert sorted(found.errors) == [1] and found.score == pytest.approx(2 / 3)
    broken["now"] = False
    found = evaluate(team, ROWS[:3], **options, resume=True)
    assert not found.errors and found.score == 1
    assert [row.row for row in read_records(path)] == [0, 1, 2]


@pytest.mark.parametrize("name", list(CONTROLS))
def test_controls_run_beside_the_team(team, name):
    found = evaluate(team, ROWS[:4], controls=[name], grader=odd)
    other = found.others[name]
    assert other.rows == 4 and found.differences[name].mean == found.score - other.score
    assert (other.latent_steps == 0) == (name in ("alone", "twin"))


def test_controls_change_what_they_say(team):
    trained = sequential(rounds=1, latent_steps=2, max_new_tokens=4).compile().load(seed=1)
    found = evaluate(trained, ROWS[:4], controls=["untrained", "zeroed", "alone", "shuffled"])
    texts = {name: one.texts for name, one in found.others.items()}
    assert texts["untrained"] == evaluate(team, ROWS[:4]).texts, "links of seed 0"
    prompt = next(found.others["alone"].records()).prompt
    assert "<message" not in prompt and "0 + 1?" in prompt
    with pytest.raises(UnknownNameError, match="did you mean 'shuffled'"):
        evaluate(team, ROWS, controls=["shufled"])
    with pytest.raises(DataError, match="at least two rows"):
        evaluate(team, ROWS[:1], controls=["shuffled"])
    twin = team.text_twin(max_new_tokens=2)
    with pytest.raises(LatentMASError, match="needs a latent edge"):
        evaluate(twin, ROWS, controls=["zeroed"])


def test_an_output_agent_that_reads_messages_alone_runs_alone():
    graph = lm.Graph("relay", inputs=["passage", "question"], rounds=1, latent_steps=2)
    graph.add_agent("reader", tiny("llama", 16), prompt="{{ passage }}{{ question }}")
    graph.add_agent("answerer", tiny("llama", 16), prompt="Answer: {{ reader }}", max_new_tokens=2)
    graph.connect("reader", "answerer")
    system = graph.output("answerer").compile().load()
    rows = [{"passage": "a", "question": "b", "answer": "c"}] * 2
    found = evaluate(system, rows, controls=["alone"])
    prompt = next(found.others["alone"].records()).prompt
    assert "Answer: " in prompt and "<message" not in prompt


def test_shuffled_rows_get_the_message_of_the_row_before(team):
    seen = list[Any]()
    with team.tap("planner->critic", lambda name, message: seen.append(message) or message):
        evaluate(team, ROWS[:4], controls=["shuffled"], batch_size=2)
    assert [len(message) for message in seen] == [2, 2, 2, 2]
    pair = evaluate(team, ROWS[:2], controls=["shuffled"], batch_size=2)
    more = evaluate(team, ROWS[:4], controls=["shuffled"], batch_size=2)
    assert pair.others["shuffled"].texts == more.others["shuffled"].texts[:2]


def test_a_warning_when_no_correct_answer_can_be_read(team, caplog):
    evaluate(team, [{"question": "?", "answer": "12"}], grader="choice")
    assert "cannot read the correct answers of 1 of 1 rows" in caplog.text
    assert "(row 0: '12' names no option from A to Z)" in caplog.text


def test_part_marks_have_a_bootstrap_interval(team):
    def half(text: str, gold: str) -> float:
        return 0.5 if gold in "02468" else 1.0

    found = evaluate(team, ROWS, grader=half)
    assert found.score == pytest.approx(0.75) and found.right.count(True) == 5
    assert 0.5 < found.interval[0] < 0.75 < found.interval[1] < 1


def test_a_grader_names_the_fields_that_it_needs(team):
    class Needy(Grader):
        name, needs = "needy", ("tests",)

        def grade(self, text: str, gold: Any, row: Any) -> Grade:
            return Grade(bool(row["tests"]), "x", "equal")

    with pytest.raises(DataError, match="sample 0 lacks the field 'tests'"):
        evaluate(team, ROWS[:1], grader=Needy())
    assert evaluate(team, [ROWS[0] | {"tests": 1}], grader=Needy()).score == 1


def test_tables_and_the_page(team, tmp_path):
    rows = [{"question": "a <b> & \\c_d$?", "answer": "x"}, *ROWS[:2]]
    found = evaluate(team, rows, controls=["alone", "zeroed"], grader=odd)
    markdown = write_table(found, tmp_path / "t.md").read_text().splitlines()
    assert markdown[0].startswith("| system | score |") and len(markdown) == 7
    assert {len(line.split("|")) for line in markdown[:5]} == {10}
    latex = write_table(found, tmp_path / "t.tex").read_text()
    assert latex.count(r"\\") == 4 and r"95 \% interval" in latex
    data = json.loads(write_table(found, tmp_path / "t.json").read_text())
    assert set(data["others"]) == {"alone", "zeroed"}
    assert write_table(found, tmp_path / "t.txt").read_text() == f"{found}\n"
    page = write_table(found, tmp_path / "t.html").read_text()
    assert "a &lt;b&gt; &amp; \\c_d$?" in page and "<b> &" not in page
    assert page.count('class="row"') == 3 and page.count("<section>") == 9
    assert "http" not in page.replace("http-equiv", "")
    with pytest.raises(LatentMASError, match=r"must end in \.md, \.tex, \.json"):
        write_table(found, tmp_path / "t.csv")


# --- statistics -----------------------------------------------------------------------------


def test_majorities():
    row = Sampled([False, True, True, False], [0, 1, 1, 3])
    assert majority_at(4, row) == 1 and majority_at(1, row) == pytest.approx(0.5, abs=0.1)
    assert majority_at(2, Sampled([True, False], [0, 1])) == 1, "of equals, the first drawn"
    assert majority_at(2, Sampled([False, True], [0, 1])) == 0
    with pytest.raises(ValueError, match="expected k from 1 to 2"):
        majority_at(3, Sampled([True, False], [0, 1]))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=2, max_size=8))
def test_a_majority_of_equal_answers_is_their_verdict(drawn):
    verdicts = {group: group % 2 == 0 for _, group in drawn}
    groups = [next(i for i, (_, g) in enumerate(drawn) if g == group) for _, group in drawn]
    row = Sampled([verdicts[group] for _, group in drawn], groups)
    shares = [majority_at(k, row) for k in range(1, len(drawn) + 1)]
    assert all(0 <= share <= 1 for share in shares) and shares[-1] in (0, 1)


def test_copies_of_a_question_do_not_narrow_intervals():
    scores = [1.0, 0.0] * 10
    alone = mean_interval(scores, range(20))
    copied = mean_interval(scores * 8, [*range(20)] * 8)
    naive = mean_interval(scores * 8)
    assert copied[1] - copied[0] > 0.8 * (alone[1] - alone[0]) > 1.5 * (naive[1] - naive[0])
    pair = paired_difference(scores * 8, [0.0] * 160, clusters=[*range(20)] * 8)
    assert pair.interval[1] - pair.interval[0] > 0.3


@given(st.integers(2, 60), st.integers(1, 9))
def test_batches_are_even_and_have_no_lone_rows(rows, size):
    batches = even_batches(range(rows), size)
    assert [n for batch in batches for n in batch] == list(range(rows))
    sizes = [len(batch) for batch in batches]
    assert min(sizes) >= 2 and max(sizes) - min(sizes) <= 1 and max(sizes) <= max(3, size + 1)
