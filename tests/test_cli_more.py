"""The command line: eval, bench, chat, errors, completion, colour, rates."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml
from rich.progress import Task

import latentmas as lm
from latentmas.cli import chat as chatting
from latentmas.cli.app import app
from latentmas.cli.support.options import files_of
from latentmas.cli.support.progress import _Rate
from latentmas.cli.support.rows import write_rows
from latentmas.engine import executors
from latentmas.errors import CODES
from latentmas.evaluation import evaluate, graders
from latentmas.spec import GraphSpec, read_jsonl
from latentmas.testing import tiny_backbone
from tests.test_cli import call, plain, team, words  # noqa: F401  # fixtures, too


@pytest.fixture
def rows(team: Path, tmp_path: Path) -> Path:  # noqa: F811
    """Three questions, of which the team has two right."""
    data = [{"question": f"{i}+1?"} for i in range(3)]
    texts = lm.Graph.load(team).compile().load().run(data).texts
    answers = [*texts[:2], "no"]
    return write_rows(
        tmp_path / "rows.jsonl",
        [row | {"gold": text} for row, text in zip(data, answers, strict=True)],
    )


def test_eval(team, rows, tmp_path):  # noqa: F811
    options = ("--data", rows, "--answer-field", "gold", "--twin", "--twin-tokens", 2)
    out = tmp_path / "judged.jsonl"
    facts = json.loads(call("eval", team, *options, "-o", out, "--json").stdout)
    graph = lm.Graph.load(team)
    system = graph.compile().load()
    twin = lm.System.load(graph.as_text(max_new_tokens=2).compile(), reuse=system)
    same = evaluate(
        system, read_jsonl(rows).rows, answer_field="gold", compare_with={"twin": twin}
    ).to_dict()
    for side in (facts, facts["others"]["twin"], same, same["others"]["twin"]):
        side.pop("seconds")
    assert facts == json.loads(json.dumps(same))
    assert facts["score"] == 2 / 3 and facts["others"]["twin"]["latent_steps"] == 0
    judged = read_jsonl(out).rows
    assert [row["right"] for row in judged if row["system"] == "team"] == [True, True, False]
    assert {"prediction", "answers", "gold", "prompt"} <= judged[0].keys()
    assert [row["system"] for row in judged] == ["team"] * 3 + ["twin"] * 3
    out.unlink()
    shown = call("eval", team, *options).stdout
    assert " 66.7 " in shown and "team less system" in shown
    one = ("--data", rows, "--answer-field", "gold", "--rounds", 1, "--latent-steps", 1)
    assert json.loads(call("eval", team, *one, "--json").stdout)["latent_steps"] == 3 * 2


def test_eval_of_a_saved_team_with_its_twin(team, rows, tmp_path):  # noqa: F811
    lm.Graph.load(team).compile().load().save_pretrained(tmp_path / "saved")
    options = ("--data", rows, "--answer-field", "gold", "--twin", "--json")
    assert (
        json.loads(call("eval", tmp_path / "saved", *options).stdout)["others"]["twin"]["rows"] == 3
    )


def test_eval_says_what_is_wrong(team, rows):  # noqa: F811
    assert (
        "rows.jsonl:1: lacks the field 'answer'"
        in call("eval", team, "--data", rows, code=1).stderr
    )
    options = ("--data", rows, "--answer-field", "gold")
    assert "did you mean 'math'" in call("eval", team, *options, "--grader", "maths", code=1).stderr
    error = words(call("eval", team, *options, "--twin-tokens", 3, code=2).stderr)
    assert "--twin-tokens requires --twin" in error


def test_bench(team):  # noqa: F811
    options = ("--samples", 2, "--repeats", 1, "--max-new-tokens", 2)
    facts = json.loads(call("bench", team, *options, "--json").stdout)
    assert [t["executor"] for t in facts["timings"]] == ["reference", "cached", "static"]
    assert all(t["same_tokens"] and t["seconds"] > 0 for t in facts["timings"])
    table = call("bench", team, "Why?", *options, "--executors", "cached").stdout.splitlines()
    assert table[1].split()[0] == "cached" and "1.00x" in table[1]
    assert "unknown executor" in call("bench", team, "--executors", "fast", code=1).stderr
    assert "one or more" in words(call("bench", team, "--executors", " , ", code=2).stderr)


# --- chat -----------------------------------------------------------------------------------


def ask(team: Path, text: str, *more: str, code: int = 0):  # noqa: F811
    from typer.testing import CliRunner

    done = CliRunner().invoke(app, ["run", str(team), "--chat", *more], input=text)
    assert done.exit_code == code, f"{done.stdout}\n{done.stderr}\n{done.exception!r}"
    return done


def one_line(text: str) -> str:
    return " ".join(text.splitlines())


def test_chat_answers_each_line_of_a_pipe(team):  # noqa: F811
    system = lm.Graph.load(team).compile().load()
    done = ask(team, "3+4?\n\n  why?  \n3+4?")
    texts = [system("3+4?").text, "", system("why?").text, system("3+4?").text]
    assert done.stdout == "".join(f"{one_line(text)}\n" for text in texts)
    assert ask(team, "").stdout == ""


def test_chat_goes_on_after_a_question_that_fails(team):  # noqa: F811
    long = "x" * 5000  # beyond the model's positions
    done = ask(team, f"{long}\n3+4?\n", code=1)
    assert done.stderr.count("error: ") == 1
    text = lm.Graph.load(team).compile().load()("3+4?").text
    assert done.stdout == f"\n{one_line(text)}\n"


def test_chat_keeps_an_answer_of_several_lines_on_one(team, monkeypatch):  # noqa: F811
    def answer(self: lm.System, samples: list[dict[str, str]], **_: object) -> object:
        return types.SimpleNamespace(texts=[f"so:\n\n{samples[0]['question']}\r\n"])

    monkeypatch.setattr(lm.System, "run", answer)
    assert ask(team, "a\nb\n").stdout == "so:  a\nso:  b\n"


def test_chat_ends_at_ctrl_c_and_at_the_end_of_a_terminal(team, monkeypatch, capsys):  # noqa: F811
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    said = iter(["3+4?", "  ", KeyboardInterrupt(), "never", EOFError()])

    def read(prompt: str) -> str:
        word = next(said)
        if isinstance(word, BaseException):
            raise word
        return word

    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr("builtins.input", read)
    system = lm.Graph.load(team).compile().load()

    def samples(question: str) -> list[dict[str, str]]:
        return [{"question": question}]

    assert chatting.chat(system, samples, lm.RunOptions())  # ends at the interrupt
    assert chatting.chat(
        system, samples, lm.RunOptions()
    )  # one more question, then the end of the terminal
    assert capsys.readouterr().out == f"{system('3+4?').text}\n{system('never').text}\n"


def test_chat_takes_fields_and_refuses_what_does_not_go_with_it(tmp_path, team):  # noqa: F811
    tiny = tiny_backbone("llama", 16)
    graph = lm.Graph("two", inputs=["a", "b"], rounds=1)
    graph.add_agent("one", tiny, prompt="{{ a }} {{ b }}", max_new_tokens=2)
    path = graph.output("one").save(tmp_path / "two.yaml")
    expected = graph.compile().load()({"a": "x", "b": "y"}).text
    assert ask(path, "y\n", "--field", "a=x").stdout == f"{one_line(expected)}\n"
    assert "--field b=" in words(ask(path, "y\n", code=2).stderr)
    for more in (["--json"], ["--stream"], ["-o", "x.jsonl"], ["question"]):
        assert "--chat reads its questions itself" in words(ask(team, "", *more, code=2).stderr)


# --- codes, completion, colour, rates, new ----------------------------------------------------


def test_errors_explains_codes(tmp_path):
    listed = call("errors").stdout.splitlines()
    assert [line.split()[0] for line in listed] == list(CODES)
    assert json.loads(call("errors", "--json").stdout) == CODES
    text = call("errors", "lm302").stdout
    assert text.startswith("## LM302") and "Fix: " in text and "## LM303" not in text
    assert json.loads(call("errors", "LM302", "--json").stdout)["text"] == text.strip()
    assert "did you mean 'LM302'" in words(call("errors", "LM3O2", code=2).stderr)


def test_messages_say_where_their_codes_are_explained(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("agents: 3\nnope: 1")
    assert "more: latentmas errors LM100" in call("check", path, code=1).stderr
    with pytest.raises(lm.GraphError) as caught:
        lm.Graph.load(path)
    assert caught.value.__notes__ == ["more: latentmas errors LM100"]
    with pytest.raises(lm.LatentMASError) as other:
        lm.System.from_pretrained(tmp_path / "nothing")
    assert other.value.__notes__ == ["more: latentmas errors LM502"]
    assert not hasattr(lm.DataError("row 3 lacks LM103"), "__notes__")


def complete(line: str) -> str:
    environment = os.environ | {
        "_LATENTMAS_COMPLETE": "complete_bash",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(line.split(" ")) - 1),
    }
    code = "from latentmas.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600
    )
    return done.stdout


def test_completion_knows_commands_and_names():
    assert {"check", "eval", "chat"} & set(complete("latentmas ").split()) >= {"check", "eval"}
    assert set(complete("latentmas new x --template ").split()) >= set(lm.templates.names())
    assert files_of("engine.executors") == executors.names()
    assert set(files_of("evaluation.graders")) <= set(graders.names())


def test_no_color(monkeypatch):
    def colours(**more: str) -> list[str]:
        environment = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
        environment |= {"FORCE_COLOR": "1", "TERM": "xterm-256color"} | more
        command = [sys.executable, "-m", "latentmas", "check", "no-such-file.yaml"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
        return re.findall(r"\x1b\[[\d;]*3[0-7]m", done.stderr)

    assert colours() and not colours(NO_COLOR="1")


def test_the_bar_shows_a_rate():
    def shown(speed: float | None) -> str:
        task = Task(0, "run", 10, 0, _get_time=lambda: 0.0)
        task.finished_speed = speed
        return str(_Rate().render(task))

    assert [shown(None), shown(12.34), shown(0.25)] == ["", "12.3/s", "4 s each"]


def test_new_names_a_schema_that_accepts_the_graph(tmp_path):
    call("new", "math", "--output", tmp_path)
    call("new", "other", "--template", "distillation", "--output", tmp_path / "b")
    text = (tmp_path / "math.yaml").read_text()
    named = re.match(r"# yaml-language-server: \$schema=\./(.*)\n", text)
    schema = json.loads((tmp_path / named[1]).read_text())
    assert schema == GraphSpec.json_schema()
    assert yaml.safe_load(text).keys() <= schema["properties"].keys()
    (tmp_path / "graph.schema.json").write_text("old")
    (tmp_path / "math.yaml").unlink()
    for prompt in (tmp_path / "prompts" / "math").iterdir():
        prompt.unlink()
    call("new", "math", "--output", tmp_path)  # the schema is no file of the user's
    assert json.loads((tmp_path / "graph.schema.json").read_text()) == schema
