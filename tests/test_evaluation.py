"""Graders, intervals, evaluations beside the twin, executors timed."""

from __future__ import annotations

import itertools
import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import latentmas as lm
from latentmas.errors import DataError, LatentMASError, UnknownNameError
from latentmas.evaluation import (
    evaluate,
    graders,
    open_grader,
    paired_difference,
    pass_at,
    tango,
    time_executors,
    wilson,
)
from tests.teams import sequential

RIGHT = {
    "exact": [("a  b\n", "a b"), ("4", "4")],
    "math": [
        ("so \\boxed{12}", "12"),
        ("\\boxed{1} no, \\boxed{\\frac{1}{2}}", "0.5"),
        ("\\boxed{\\dfrac{-3}{4}}", "-3/4"),
        ("$1{,}000$", "1{,}000"),
        ("1,234,567", "1234567"),
        ("\\boxed{50\\%}", "1/2"),
        ("\\boxed{\\text{east}}", "east"),
        ("\\boxed{ x^{2} + 1 }", "x^{2}+1"),
        ("42.", "42"),
    ],
    "choice": [
        ("\\boxed{B}", "B"),
        ("\\boxed{\\text{B}}", "B"),
        ("A is tempting, but the answer is (C).", "C"),
        ("**B**", "B"),
        ("D. Hemidesmosomes", "D"),
        ("Final Choice: A", "\\boxed{A}"),
    ],
}
WRONG = {
    "exact": [("a b", "ab"), ("A", "a"), ("", "a")],
    "math": [
        ("\\boxed{\\frac{1}{2}}", "\\frac{3}{4}"),
        ("0.33", "1/3"),
        ("-1", "-1.9"),
        ("6-5i", "6"),
        ("1/0", "0"),
        ("", ""),
        ("\\boxed{", "\\boxed{}"),
        ("x^2+2x", "y^2"),
    ],
    "choice": [
        ("I do not know", "A"),
        ("", "A"),
        ("Apples", "A"),
        ("\\boxed{none}", "A"),
        ("the answer is Apples", "A"),
    ],
}


@pytest.mark.parametrize("name", graders.names())
def test_graders_judge(name: str):
    judge = open_grader(name)
    for written, right in RIGHT[name]:
        assert judge.grade(written, right, {}).right, (written, right)
    for written, right in WRONG[name]:
        assert not judge.grade(written, right, {}).right, (written, right)


@given(st.text(), st.text())
def test_graders_take_any_text(written: str, right: str):
    for name in graders.names():
        assert open_grader(name).grade(written, right, {}).right in (True, False)


@given(st.integers(-999, 999), st.integers(1, 99))
def test_numbers_are_compared_exactly(top: int, bottom: int):
    judge = open_grader("math")
    assert judge.grade(f"\\boxed{{\\frac{{{top}}}{{{bottom}}}}}", f"{top}/{bottom}", {}).right
    assert not judge.grade(f"{top}/{bottom}", f"{top * 10 + 1}/{bottom * 10}", {}).right


def test_wilson_covers_and_stays_a_share():
    low, high = wilson(0.5, 100)
    assert math.isclose(low, 0.40383, abs_tol=1e-5) and math.isclose(high, 0.59617, abs_tol=1e-5)
    assert wilson(0.0, 10)[0] == 0.0 and 0.25 < wilson(0.0, 10)[1] < 0.31
    with pytest.raises(ValueError, match="at least one sample"):
        wilson(0.5, 0)


def test_tango_gives_the_published_interval():
    """Fagerland, Lydersen & Laake (2014), Statistics in Medicine 33, tables II and V."""
    assert [round(edge, 3) for edge in tango(1, 7, 21)] == [-0.517, -0.026]


def test_tango_at_the_ends():
    spread = 1.959963984540054**2
    for n in (1, 8, 500):
        low, high = tango(0, 0, n)  # solved by hand: z² / (n + z²)
        assert high == pytest.approx(spread / (n + spread)) and low == pytest.approx(-high)
    assert tango(9, 0, 9)[1] == 1.0 and tango(0, 9, 9)[0] == -1.0
    assert tango(12, 2, 50) == pytest.approx([-edge for edge in tango(2, 12, 50)[::-1]])
    with pytest.raises(ValueError, match="at least one sample"):
        tango(0, 0, 0)


def test_pass_at_is_the_share_of_draws_with_a_right_one():
    for n, c, k in ((4, 1, 2), (5, 2, 3), (6, 0, 2), (6, 6, 1), (5, 3, 3)):
        draws = list(itertools.combinations([True] * c + [False] * (n - c), k))
        assert pass_at(k, c, n) == pytest.approx(sum(map(any, draws)) / len(draws))
    with pytest.raises(ValueError, match="expected k from 1 to 4"):
        pass_at(5, 1, 4)


def test_a_paired_difference_counts_rows_and_has_an_interval():
    found = paired_difference([True] * 30 + [False] * 10, [True] * 20 + [False] * 20)
    assert (found.won, found.lost, found.mean) == (10, 0, 0.25)
    assert 0.1 < found.interval[0] < 0.25 < found.interval[1] < 0.45
    none = paired_difference([True, False] * 50, [False, True] * 50)
    assert none.mean == 0 and none.interval[0] < 0 < none.interval[1]
    same = paired_difference([True, False] * 50, [True, False] * 50)
    assert same.mean == 0 and same.interval == pytest.approx((-0.036993, 0.036993), abs=1e-6)
    parts = paired_difference([0.5, 1.0, 0.25] * 20, [0.5, 0.5, 0.5] * 20)
    assert (parts.won, parts.lost) == (20, 20) and parts.mean == pytest.approx(0.25 / 3)
    assert parts.interval[0] < parts.mean < parts.interval[1] < 0.2
    with pytest.raises(ValueError, match="expected equally many scores"):
        paired_difference([True], [])


@pytest.fixture(scope="module")
def team() -> lm.System:
    return sequential(rounds=2, latent_steps=2, max_new_tokens=3).compile().load()


@pytest.fixture(scope="module")
def rows(team) -> list[dict[str, str]]:
    questions = [{"question": f"{n} + 1?"} for n in range(4)]
    texts = team.run(questions).texts
    return [q | {"answer": t} for q, t in zip(questions, [*texts[:3], "?"], strict=True)]


def test_evaluate_scores_counts_and_compares(team, rows):
    graph = sequential(rounds=2, latent_steps=2, max_new_tokens=3)
    twin = lm.System.load(graph.as_text(max_new_tokens=2).compile(), reuse=team)
    found = evaluate(team, rows, compare_with={"twin": twin}, batch_size=2)
    assert (found.score, found.rows, found.right) == (0.75, 4, (True, True, True, False))
    assert found.interval == wilson(0.75, 4)
    assert found.latent_steps == 4 * 5 * 2 and found.new_tokens <= 4 * 3
    assert found.twin.latent_steps == 0 and found.twin.new_tokens > found.new_tokens
    assert found.difference == paired_difference(found.right, found.twin.right)
    shown = str(found)
    assert "team" in shown and "twin" in shown and " 75.0 " in shown
    data = json.loads(json.dumps(found.to_dict()))
    assert data["score"] == 0.75 and data["others"]["twin"]["rows"] == 4
    assert data["others"]["twin"]["difference"]["won"] == found.difference.won


def test_evaluate_takes_any_grader_and_field(team, rows):
    def always(written: str, right: str) -> bool:
        return right == "yes"

    marked = [row | {"gold": "yes"} for row in rows]
    found = evaluate(team, marked, grader=always, answer_field="gold")
    assert (found.grader, found.score, found.twin) == ("always", 1.0, None)
    assert "twin" not in found.to_dict() and "twin" not in str(found)


def test_evaluate_says_what_is_wrong(team, rows):
    with pytest.raises(DataError, match="no rows"):
        evaluate(team, [])
    with pytest.raises(DataError, match="sample 1 lacks the field 'answer'; it has: question"):
        evaluate(team, [rows[0], {"question": "?"}])
    with pytest.raises(UnknownNameError, match="did you mean 'exact'"):
        evaluate(team, rows, grader="exakt")


def test_all_answers_of_a_row_are_scored(team, rows):
    def even(written: str, right: str) -> bool:
        return len(written) % 2 == 0

    drawn = {"do_sample": True, "num_return_sequences": 3, "temperature": 3.0}
    found = evaluate(team, rows, grader=even, compare_with={"same": team}, **drawn)
    sequences = found.sequences
    marks = [[len(text) % 2 == 0 for text in own] for own in sequences]
    assert [list(own) for own in found.marks] == marks
    assert len({sum(own) for own in marks}) > 1, "answers that differ"
    assert found.score == pytest.approx(sum(map(sum, marks)) / 12)
    assert set(found.sampled) == {"pass@1", "pass@2", "pass@3", "maj@2", "maj@3", "any of 3"}
    assert found.sampled["pass@1"] == pytest.approx(found.score)
    assert found.sampled["pass@3"] == found.sampled["any of 3"] == sum(map(any, marks)) / 4
    same = found.differences["same"]
    assert same.mean == 0 and (same.won, same.lost) == (0, 0), "the same answers, row by row"
    assert "pass@3" in str(found) and found.to_dict()["sampled"] == found.sampled


def test_answers_do_not_depend_on_the_rows_beside_them(team, rows):
    drawn = {"do_sample": True, "num_return_sequences": 2, "temperature": 3.0, "seed": 5}
    whole = evaluate(team, rows, **drawn)
    for number, row in enumerate(rows):
        assert evaluate(team, [row], **drawn).sequences[0] == whole.sequences[number]
    twice = evaluate(team, [rows[0], rows[0]], **drawn).sequences
    assert twice[0] == whole.sequences[0] != twice[1], "copies of a row have streams of their own"


def test_rows_that_fail_count_as_wrong_and_are_told_apart(team, rows):
    bad = [*rows, {"question": "word " * 9_000, "answer": ""}, {"question": "no answer"}]
    with pytest.raises(DataError, match="sample 5 lacks the field 'answer'"):
        evaluate(team, bad)
    with pytest.raises(DataError, match="sample 4: agent 'planner': a prompt of"):
        evaluate(team, bad[:5])
    found = evaluate(team, bad, on_error="keep", compare_with={"same": team})
    assert (found.rows, found.score, sorted(found.errors)) == (6, 0.5, [4, 5])
    assert found.texts[4] == "" and found.right == (True, True, True, False, False, False)
    assert "2 of 6 rows failed and count as wrong (from 0: 4, 5)" in str(found)
    assert list(json.loads(json.dumps(found.to_dict()))["errors"]) == ["4", "5"]


def test_a_grader_that_fails_names_its_row(team, rows):
    def picky(written: str, right: str) -> bool:
        return {"?": 1 / 0}[right] if right == "?" else True

    with pytest.raises(DataError, match="sample 3: grader 'picky' failed: ZeroDivisionError"):
        evaluate(team, rows, grader=picky)
    found = evaluate(team, rows, grader=picky, on_error="keep")
    assert (found.score, sorted(found.errors)) == (0.75, [3])


def test_executors_are_timed_side_by_side(team, rows):
    found = time_executors(team, rows, ["reference", "cached"], repeats=1)
    assert [timing.executor for timing in found] == ["reference", "cached"]
    assert found[0].ratio == 1 and all(timing.same_tokens for timing in found)
    assert all(0 < t.latent_seconds + t.text_seconds <= t.seconds for t in found)
    assert set(found[0].to_dict()) >= {"seconds", "ratio", "same_tokens"}
    with pytest.raises(LatentMASError, match="at least one executor"):
        time_executors(team, rows, [])
