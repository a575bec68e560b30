"""Benchmarks by name: their rows become samples, from files and from the Hub."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from latentmas.cli.app import app
from latentmas.errors import DataError, LatentMASError, UnknownNameError
from latentmas.evaluation import (
    Benchmark,
    benchmarks,
    fill_inputs,
    graders,
    load_benchmark,
    open_grader,
)
from latentmas.plan import RunOptions
from latentmas.tables import digest_of

QUESTION = "A pond has 3 ducks and 4 geese. How many birds are in it?"
GPQA = {
    "Record ID": "rec1",
    "Question": "Which of these numbers is prime?",
    "Correct Answer": "17 ",
    "Incorrect Answer 1": "21",
    "Incorrect Answer 2": "35",
    "Incorrect Answer 3": "51",
    "High-level domain": "Physics",
}
AIME = [
    {"problem": "Find $7 \\cdot 10$.", "answer": "070", "id": "0"},
    {"problem": "Find $2^3$.", "answer": 8},
]
OPTIONS = {"A": "Desmosomes", "B": "Hemidesmosomes", "C": "Tight junctions", "D": "Gap junctions"}
BLOCK = "\n".join(f"{letter}. {text}" for letter, text in OPTIONS.items())
ROWS: dict[str, list[dict[str, Any]]] = {
    "gsm8k": [
        {"question": QUESTION, "answer": "There are 3+4=<<3+4=7>>7 birds.\n#### 7"},
        {"question": "What does a car of $2,125 cost?", "answer": "#### 2,125"},
    ],
    "math500": [
        {
            "problem": "Simplify $\\sqrt{8}$.",
            "solution": "It is $\\boxed{2\\sqrt{2}}$.",
            "answer": "2\\sqrt{2}",
            "subject": "Prealgebra",
            "level": 2,
            "unique_id": "test/prealgebra/1.json",
        }
    ],
    "aime25": AIME,
    "aime26": AIME,
    "gpqa_diamond": [GPQA],
    "medqa": [
        {
            "question": "Which structure ties a cell to the basement membrane?",
            "answer": "Hemidesmosomes",
            "options": OPTIONS,
            "meta_info": "step1",
            "answer_idx": "B",
        },
        {
            "idx": 3,
            "question": f"Which structure ties a cell to its matrix?\n{BLOCK}\n\n{BLOCK}",
            "options": BLOCK.split("\n"),
            "answer": "Hemidesmosomes",
        },
    ],
    "hotpotqa": [
        {
            "id": "5a",
            "question": "Are both lakes in Norway?",
            "answer": "yes",
            "type": "comparison",
            "level": "hard",
            "context": {"title": ["Lake A", "Lake B"], "sentences": [["One. ", "Two."], ["Three"]]},
        },
        {"question": "Who is taller?", "answer": ["Ann", "Ann Lee"]},
        {"question": "Which one?", "answer": "it", "context": [["Lake C", ["Four."]]]},
    ],
    "bamboogle": [
        {"Question": "Who ruled when it was written?", "Answer": "James I"},
        {"question": "Who ruled when it was read?", "answer": ["Anne", "Queen Anne"]},
    ],
}
"""Rows in the form of each data set. They were made up: some sets may not be copied."""
ANSWERS = {
    "gsm8k": ["7", "2,125"],
    "math500": ["2\\sqrt{2}"],
    "aime25": ["70", "8"],
    "aime26": ["70", "8"],
    "medqa": ["B", "B"],
    "hotpotqa": ["yes", ["Ann", "Ann Lee"], "it"],
    "bamboogle": ["James I", ["Anne", "Queen Anne"]],
}
MINE = sorted(ROWS)
"""Benchmarks whose rows are tested here; those of code are in `test_code_grader.py`."""


@pytest.fixture
def write(tmp_path: Path):
    def written(rows: list[dict[str, Any]], name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return path

    return written


# --- the contract -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", benchmarks.names())
def test_contract(name: str):
    one = benchmarks.get(name)
    assert isinstance(one, Benchmark)
    assert one.name == name
    texts = (one.title, one.source, one.split, one.licence, one.citation)
    assert all(text.strip() for text in texts)
    assert one.source.count("/") == 1
    assert one.grader in graders.names()
    RunOptions().replace(**one.options)  # raises for options that a run does not have
    assert not one.revision or (len(one.revision) == 40 and int(one.revision, 16))
    assert one.columns
    assert one.missing({}) and not one.missing(_with_columns(one))
    assert json.loads(json.dumps(one.to_dict()))["name"] == name
    for example in one.examples:
        assert set(example) >= {"question", "answer"}


def _with_columns(one: Benchmark) -> dict[str, int]:
    return {(name if isinstance(name, str) else name[-1]): 1 for name in one.columns}


@pytest.mark.parametrize("name", MINE)
def test_contract_of_rows(name: str, write: Any):
    samples = load_benchmark(name, path=write(ROWS[name]))
    one = benchmarks.get(name)
    assert len(samples) == len(ROWS[name])
    assert samples.benchmark is one
    assert len({sample["id"] for sample in samples}) == len(samples)
    if name in ANSWERS:
        assert [sample["answer"] for sample in samples] == ANSWERS[name]
    for sample in samples:
        assert sample["question"].count(one.instruction) == 1
        assert "\\boxed" in one.instruction


@pytest.mark.parametrize("name", MINE)
def test_right_and_wrong_answers_are_told_apart(name: str, write: Any):
    one = benchmarks.get(name)
    with open_grader(one.grader, **one.grader_options) as judge:
        for sample in load_benchmark(one, path=write(ROWS[name])):
            right = sample["answer"]
            text = right[0] if isinstance(right, list) else right
            assert judge.gold_problem(right, sample) is None
            assert judge.grade(f"So it is \\boxed{{{text}}}.", right, sample).right
            assert not judge.grade("So it is \\boxed{E and 12345}.", right, sample).right


@pytest.mark.parametrize("name", MINE)
def test_examples_are_solved(name: str, write: Any):
    """Every example ends in an answer of the form that the instruction asks for."""
    one = benchmarks.get(name)
    assert len(one.examples) >= 2
    for example in one.examples:
        assert example["answer"].splitlines()[-1].startswith("\\boxed{")


# --- single benchmarks --------------------------------------------------------------------------


def test_gsm8k_takes_the_number_and_drops_calculator_notes(write: Any):
    first = load_benchmark("gsm8k", path=write(ROWS["gsm8k"]))[0]
    assert first["solution"] == "There are 3+4=7 birds."
    with pytest.raises(DataError, match=r"rows\.jsonl:1: .*#### NUMBER"):
        load_benchmark("gsm8k", path=write([{"question": "Q?", "answer": "seven"}]))


def test_math500_keeps_subject_and_level(write: Any):
    first = load_benchmark("math500", path=write(ROWS["math500"]))[0]
    found = (first["id"], first["subject"], first["level"])
    assert found == ("test/prealgebra/1.json", "Prealgebra", 2)


@pytest.mark.parametrize("answer", ["1000", "-1", "x", "1.5"])
def test_aime_refuses_what_is_not_an_answer(answer: str, write: Any):
    with pytest.raises(DataError, match="not an integer from 0 to 999"):
        load_benchmark("aime25", path=write([{"problem": "P", "answer": answer}]))


def test_gpqa_shuffles_by_the_question_alone(write: Any):
    rows = [{**GPQA, "Record ID": f"r{i}", "Question": f"Question {i}?"} for i in range(60)]
    samples = load_benchmark("gpqa_diamond", path=write(rows), seed=1)
    again = load_benchmark("gpqa_diamond", path=write(rows[::-1]), seed=2)
    assert {s["id"]: s for s in samples} == {s["id"]: s for s in again}
    letters = [sample["answer"] for sample in samples]
    assert {letter: letters.count(letter) >= 5 for letter in "ABCD"} == dict.fromkeys("ABCD", True)
    for sample in samples:
        assert f"{sample['answer']}. 17\n" in sample["question"] + "\n"
        assert sample["options"]["ABCD".index(sample["answer"])] == "17"
        assert sample["subject"] == "Physics"


def test_medqa_shows_options_once_and_matches_them_whole(write: Any):
    hub, file = load_benchmark("medqa", path=write(ROWS["medqa"]), instruction=False)
    for sample in (hub, file):
        assert sample["question"].endswith(f"\n\n{BLOCK}")
        assert sample["question"].count("A. Desmosomes") == 1
        assert sample["options"] == list(OPTIONS.values())
    bad = {**ROWS["medqa"][0], "answer": "Desmo"}
    with pytest.raises(DataError, match=r"0 of the options are the answer, 'Desmo'"):
        load_benchmark("medqa", path=write([bad]))


def test_hotpotqa_keeps_articles_apart_from_the_question(write: Any):
    hub, bare, original = load_benchmark("hotpotqa", path=write(ROWS["hotpotqa"]))
    assert hub["context"] == "[1] Lake A\nOne. Two.\n\n[2] Lake B\nThree"
    assert original["context"] == "[1] Lake C\nFour."
    assert "Lake A" not in hub["question"] and "context" not in bare
    assert (hub["id"], hub["type"], hub["level"]) == ("5a", "comparison", "hard")


# --- the question -------------------------------------------------------------------------------


def test_the_instruction_is_added_once(write: Any):
    one = benchmarks.get("gsm8k")
    row = {**ROWS["gsm8k"][0], "question": f"{QUESTION} {one.instruction}"}
    assert load_benchmark(one, path=write([row]))[0]["question"] == row["question"]
    plain = load_benchmark(one, path=write(ROWS["gsm8k"]), instruction=False)
    assert plain[0]["question"] == QUESTION


def test_few_shot_examples_come_first(write: Any):
    one = benchmarks.get("gsm8k")
    path = write(ROWS["gsm8k"])
    samples = load_benchmark(one, path=path, few_shot=2)
    first, second = (f"Question: {e['question']}\nAnswer: {e['answer']}" for e in one.examples[:2])
    expected = f"{first}\n\n{second}\n\nQuestion: {QUESTION}\n\n{one.instruction}"
    assert samples[0]["question"] == expected
    assert samples.few_shot == 2
    plain = load_benchmark(one, path=path)
    assert [s["id"] for s in samples] == [s["id"] for s in plain]
    assert samples.digest == plain.digest


def test_few_shot_examples_are_drawn_by_the_seed(write: Any):
    path = write(ROWS["gsm8k"])
    asked = {
        load_benchmark("gsm8k", path=path, few_shot=2, seed=n)[0]["question"] for n in range(9)
    }
    again = load_benchmark("gsm8k", path=path, few_shot=2, seed=3)[0]["question"]
    assert len(asked) > 2 and again in asked


def test_no_sample_is_shown_its_own_solution(write: Any):
    one = benchmarks.get("gsm8k")
    example = one.examples[0]
    row = {"question": example["question"].replace(". How", ".  How"), "answer": "#### 72"}
    shown = load_benchmark(one, path=write([row]), few_shot=2)[0]["question"]
    assert example["answer"] not in shown and one.examples[1]["answer"] in shown


def test_more_examples_than_there_are(write: Any):
    with pytest.raises(DataError, match="few_shot is 99, but gsm8k has 4 solved examples"):
        load_benchmark("gsm8k", path=write(ROWS["gsm8k"]), few_shot=99)


# --- rows ---------------------------------------------------------------------------------------


def test_identifiers_depend_on_the_question_alone(write: Any):
    rows = ROWS["gsm8k"]
    one, other = load_benchmark("gsm8k", path=write(rows))
    assert [s["id"] for s in load_benchmark("gsm8k", path=write(rows[::-1]))] == [
        other["id"],
        one["id"],
    ]
    twice = load_benchmark("gsm8k", path=write([rows[0], rows[0]]))
    assert [s["id"] for s in twice] == [one["id"], f"{one['id']}-2"]


def test_limit_takes_the_first_rows(write: Any):
    rows = [{"question": f"Q{i}?", "answer": f"#### {i}"} for i in range(5)]
    samples = load_benchmark("gsm8k", path=write(rows), limit=2)
    assert [s["answer"] for s in samples] == ["0", "1"]
    assert samples.digest == digest_of(rows[:2])
    assert len(load_benchmark("gsm8k", path=write(rows), limit=99)) == 5


@pytest.mark.parametrize("options", [{"limit": 0}, {"limit": 1.5}, {"few_shot": -1}])
def test_numbers_out_of_range(options: dict[str, Any], write: Any):
    with pytest.raises(LatentMASError, match="give a whole number of at least"):
        load_benchmark("gsm8k", path=write(ROWS["gsm8k"]), **options)


@pytest.mark.parametrize("option", ["split", "revision"])
def test_a_file_has_neither_split_nor_revision(option: str, write: Any):
    with pytest.raises(LatentMASError, match=f"{option} is 'x', but a file has none"):
        load_benchmark("gsm8k", path=write(ROWS["gsm8k"]), **{option: "x"})


def test_wrong_columns_are_all_named(write: Any):
    rows = [ROWS["gsm8k"][0], {"text": "x", "answer": "#### 1"}, {"question": "Q"}]
    with pytest.raises(DataError) as caught:
        load_benchmark("gsm8k", path=write(rows))
    told = str(caught.value)
    assert "2 of 3 rows do not have the columns of gsm8k (openai/gsm8k)" in told
    assert "rows.jsonl:2 lacks 'question'; it has: text, answer" in told
    assert "rows.jsonl:3 lacks 'answer'; it has: question" in told
    with pytest.raises(DataError, match="lacks 'Question or question'; it has: answer"):
        load_benchmark("bamboogle", path=write([{"answer": "x"}]))


@pytest.mark.parametrize("row", [{"question": " ", "answer": "x"}, {"question": "Q", "answer": []}])
def test_empty_questions_and_answers(row: dict[str, Any], write: Any):
    with pytest.raises(DataError, match=r"rows\.jsonl:1: .* is empty"):
        load_benchmark("hotpotqa", path=write([row]))


def test_unknown_benchmarks_are_corrected():
    with pytest.raises(UnknownNameError, match="did you mean 'gsm8k'"):
        load_benchmark("gsm9k")


def test_a_benchmark_of_your_own(write: Any):
    def read(row: Any) -> dict[str, Any]:
        return {"question": row["q"], "answer": row["a"]}

    own = Benchmark(
        name="own",
        title="Own",
        source="me/own",
        split="test",
        read=read,
        grader="exact",
        licence="MIT",
        citation="me",
        columns=("q", "a"),
    )
    try:
        assert benchmarks.register("own")(own) is own
        assert benchmarks.register("own")(own) is own  # a cell of a notebook runs again
        samples = load_benchmark("own", path=write([{"q": "Q?", "a": "x"}]))
        assert samples[0]["question"] == "Q?"
    finally:
        benchmarks._entries.pop("own", None)


# --- the Hub ------------------------------------------------------------------------------------


def test_without_datasets(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError) as caught:
        load_benchmark("gsm8k")
    told = str(caught.value)
    assert "pip install 'latentmas[eval]'" in told
    assert "local file" in told


class _Hub:
    """Stands in for the library `datasets`."""

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        self.rows, self.asked = rows, list[Any]()

    def load_dataset(self, *args: Any, **options: Any) -> list[dict[str, Any]]:
        self.asked.append((args, options))
        return self.rows


def test_rows_of_the_hub_are_pinned(monkeypatch: pytest.MonkeyPatch, write: Any):
    hub = _Hub(ROWS["gsm8k"])
    module = types.SimpleNamespace(load_dataset=hub.load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", module)
    samples = load_benchmark("gsm8k", limit=1)
    one = benchmarks.get("gsm8k")
    assert hub.asked == [(("openai/gsm8k", "main"), {"split": "test", "revision": one.revision})]
    assert samples.source == f"openai/gsm8k@{one.revision} (main/test)"
    assert samples == load_benchmark("gsm8k", path=write(ROWS["gsm8k"]), limit=1)
    load_benchmark("gsm8k", split="train", revision="main")
    assert hub.asked[-1][1] == {"split": "train", "revision": "main"}
    with pytest.raises(DataError, match=r"@.* \(test\), row 0 lacks 'problem', 'answer'; it has"):
        hub.rows = [{"question": "Q"}]
        load_benchmark("math500")


def test_without_a_network(tmp_path: Path):
    pytest.importorskip("datasets")
    program = (
        "from latentmas.evaluation import load_benchmark\n"
        "from latentmas.errors import DataError\n"
        "for name in ('gsm8k', 'gpqa_diamond'):\n"
        "    try:\n"
        "        load_benchmark(name)\n"
        "    except DataError as error:\n"
        "        print(error)\n"
    )
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **offline},
        capture_output=True,
        text=True,
        timeout=600,
    )
    gsm8k, gpqa = done.stdout.splitlines()
    assert gsm8k.startswith("LM511 cannot download the data set 'openai/gsm8k' from the Hub: ")
    assert "check the network" in gsm8k and "give its path" in gsm8k
    assert "https://huggingface.co/datasets/Idavidrein/gpqa" in gpqa and "accept the terms" in gpqa


# --- any graph ----------------------------------------------------------------------------------


SAMPLE = {"id": "1", "question": "Q?", "answer": "A", "context": "C"}


def test_fields_fill_inputs():
    row = fill_inputs([SAMPLE], ["question"])[0]
    assert row == SAMPLE
    assert fill_inputs([SAMPLE], ["task"])[0]["task"] == "Q?"
    both = fill_inputs([SAMPLE], ["task", "notes"], {"notes": "context"})[0]
    assert (both["task"], both["notes"]) == ("Q?", "C")
    assert fill_inputs([SAMPLE], ["context", "question"])[0] == SAMPLE
    assert SAMPLE == {"id": "1", "question": "Q?", "answer": "A", "context": "C"}


@pytest.mark.parametrize(
    ("inputs", "fields", "told"),
    [
        (
            ["task", "notes"],
            {},
            "no field fills the inputs task, notes; fields of the samples: ",
        ),
        (["task"], {"taks": "question"}, "'taks' is not an input of the graph; its inputs: task"),
        (["task"], {"task": "quest"}, "do not all have the field 'quest'; all of them have: id"),
        (["answer"], {"answer": "question"}, "would replace the field 'answer'"),
        (["task", "question"], {}, "no field fills the inputs task"),
    ],
)
def test_inputs_that_cannot_be_filled(inputs: list[str], fields: dict[str, str], told: str):
    with pytest.raises(DataError, match=told):
        fill_inputs([SAMPLE], inputs, fields)


# --- the command --------------------------------------------------------------------------------


def _printed(*arguments: str) -> str:
    result = CliRunner().invoke(app, ["benchmarks", *arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_the_listing():
    lines = _printed().splitlines()
    assert [line.split()[0] for line in lines] == ["name", *benchmarks.names()]
    gpqa = next(line for line in lines if line.startswith("gpqa_diamond"))
    assert "198" in gpqa and "gated" in gpqa and "choice" in gpqa
    told = json.loads(_printed("--json"))["benchmarks"]
    assert [one["name"] for one in told] == benchmarks.names()


def test_one_benchmark_in_full():
    one = benchmarks.get("medqa")
    text = _printed("medqa")
    for part in (one.title, one.source, one.revision, one.instruction, one.notes, one.licence):
        assert part in text
    assert json.loads(_printed("medqa", "--json")) == one.to_dict()
    wrong = CliRunner().invoke(app, ["benchmarks", "medqs"])
    assert wrong.exit_code == 2 and "medqa" in wrong.output


# --- the page -----------------------------------------------------------------------------------

PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "benchmarks.md"


def _line(one: Benchmark) -> str:
    """The line of the page's table."""
    source = f"{one.source}, {one.split}{' (gated)' if one.gated else ''}"
    tokens = one.options["max_new_tokens"]
    asked = f"{tokens:,} × {one.options.get('num_return_sequences', 1)}"
    rows = "not stated" if one.rows is None else f"{one.rows:,}"
    facts = (f"`{one.name}`", one.title, source, rows, f"`{one.grader}`", asked)
    licence = one.licence.partition(";")[0]
    return f"| {' | '.join((*facts, str(len(one.examples)), licence))} |"


def test_the_table_of_the_page_is_current():
    page = PAGE.read_text(encoding="utf-8").splitlines()
    shown = [line for line in page if line.startswith("| `")]
    for name in benchmarks.names():
        assert _line(benchmarks.get(name)) in shown


# --- real files ---------------------------------------------------------------------------------

FILES = {
    "gsm8k_test.jsonl": ("gsm8k", 1319),
    "math500_full.jsonl": ("math500", 500),
    "bamboogle_arpo.jsonl": ("bamboogle", 125),
    "hotpotqa200_arpo.jsonl": ("hotpotqa", 200),
    "medqa300_latentmas.json": ("medqa", 300),
}


@pytest.mark.parametrize("file", FILES)
def test_real_files(file: str):
    folder = os.environ.get("LATENTMAS_DATA")
    if not folder:
        pytest.skip("LATENTMAS_DATA does not name a folder with the data sets")
    name, rows = FILES[file]
    samples = load_benchmark(name, path=Path(folder) / file)
    assert len(samples) == rows
    shown = {e["question"] for e in benchmarks.get(name).examples}
    assert not any(s["question"].startswith(question) for s in samples for question in shown)
