"""Runs: what wins, what is recorded, and what two threads may share."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import pytest
import torch

import latentmas as lm
from latentmas.engine import executors
from latentmas.generation.jobs import DecodeJob
from latentmas.io import RunManifest
from latentmas.runtime import SampleEnd
from tests.scripted import says, scripted
from tests.teams import QUESTIONS, sequential, tiny


@pytest.fixture(scope="module")
def team() -> lm.System:
    return sequential(rounds=2, latent_steps=2, max_new_tokens=3).compile().load()


def chatty(**limits: int) -> lm.Graph:
    """Two agents that talk in words: `writer` on an edge, `solver` at the end."""
    backbone = tiny("llama", 16)
    graph = lm.Graph("chatty", inputs=["question"], rounds=1, latent_steps=2)
    for name, prompt in (("writer", "{{ question }}"), ("solver", "{{ question }}{{ writer }}")):
        graph.add_agent(name, backbone, prompt=prompt, max_new_tokens=limits.get(name))
    graph.connect("writer", "solver", link="text")
    return graph.output("solver")


# --- limits of tokens -------------------------------------------------------------------------


def written(result: lm.RunResult) -> dict[str, int]:
    return {record.agent: record.new_tokens for record in result.accounting}


def test_a_runs_limit_goes_before_an_agents_own_and_a_mapping_leaves_others_theirs():
    system = chatty(writer=3, solver=4).compile().load()
    endless = {"?": says("abcdefghijklmnopqrstuvwxyz" * 20)}
    with scripted(endless) as name:
        assert written(system.run(["?"], executor=name)) == {"writer": 3, "solver": 4}
        both = system.run(["?"], executor=name, max_new_tokens=6)
        assert written(both) == {"writer": 6, "solver": 6}
        one = system.run(["?"], executor=name, max_new_tokens={"solver": 7})
        assert written(one) == {"writer": 3, "solver": 7}
        free = chatty(writer=3).compile().load()
        assert written(free.run(["?"], executor=name)) == {"writer": 3, "solver": 256}


def test_estimates_follow_the_same_limits():
    plan = chatty(writer=3, solver=4).compile()

    def told(explanation: lm.Explanation) -> dict[str, int]:
        return {row.agents[0]: row.new_tokens for row in explanation.rows}

    assert told(plan.explain("cpu")) == {"writer": 3, "solver": 4}
    assert told(plan.explain("cpu", max_new_tokens=9)) == {"writer": 9, "solver": 9}
    assert "answers of 4 tokens" in str(plan.explain("cpu").basis)
    counted = plan.load().explain(["?"], "cpu", max_new_tokens={"writer": 5})
    assert told(counted) == {"writer": 5, "solver": 4}


@pytest.mark.parametrize("limit", [0, {"solver": 0}, {"solver": "8"}, "8"])
def test_limits_are_checked(limit: object):
    plan = chatty().compile()
    with pytest.raises(lm.LatentMASError, match=r"max_new_tokens.*whole number of at least 1"):
        plan.explain("cpu", max_new_tokens=limit)
    with pytest.raises(lm.UnknownNameError, match="did you mean 'solver'"):
        plan.explain("cpu", max_new_tokens={"solvr": 1})


def test_manifests_keep_the_limit_and_old_ones_mean_what_they_meant(tmp_path: Path):
    system, path = chatty(writer=2).compile().load(), tmp_path / "run.json"
    system.run(["?"], max_new_tokens={"solver": 3}, manifest=path)
    assert RunManifest.load(path).arguments.max_new_tokens == {"solver": 3}
    assert lm.rerun(path).equal
    data = json.loads(path.read_text())
    data["version"], data["arguments"]["max_new_tokens"] = 1, 3  # writer kept its own 2
    path.write_text(json.dumps(data))
    assert RunManifest.load(path).arguments.max_new_tokens == {"solver": 3}
    assert lm.rerun(path).equal


# --- what is recorded -------------------------------------------------------------------------


def test_tool_calls_of_every_agent_are_in_the_result():
    def double(number: int) -> str:
        """Twice a number."""
        return str(2 * number)

    backbone = tiny("llama", 16)
    graph = lm.Graph("two", inputs=["question"], rounds=1, latent_steps=2)
    graph.add_agent("helper", backbone, prompt="H {{ question }}", tools=[double])
    graph.add_agent("solver", backbone, prompt="S {{ helper }}", tools=[double])
    graph.connect("helper", "solver", link="text")
    system = graph.output("solver").compile().load()
    scripts = {
        "H plain": says("Nothing."),
        "H call": says("<double>4</double>", "It is 8."),
        "S": says("<double>5</double>", "So 10."),
    }
    with scripted(scripts) as name:
        result = system.run(["plain", "call"], executor=name, max_new_tokens=60, batch_size=1)
    told = [[(c.agent, c.round, c.result) for c in own] for own in result.tool_calls]
    assert told == [[("solver", 1, "10")], [("helper", 1, "8"), ("solver", 1, "10")]]
    assert sum(r.tool_calls for r in result.accounting) == sum(map(len, result.tool_calls)) == 3


def test_answers_are_decoded_once(team: lm.System, monkeypatch: pytest.MonkeyPatch):
    decoded, decode = list[object](), DecodeJob._text

    def counting(self: DecodeJob, ids: list[int]) -> str:
        decoded.append(ids)
        return decode(self, ids)

    monkeypatch.setattr(DecodeJob, "_text", counting)
    team.run(QUESTIONS)
    assert len(decoded) == len(QUESTIONS)


def test_two_threads_may_record_reports_with_one_executor(team: lm.System):
    executor = executors.get("cached")()
    both, results, failed = threading.Barrier(2), list[lm.RunResult](), list[BaseException]()

    def meet(event: object) -> None:
        if isinstance(event, lm.runtime.RunBegin):
            both.wait(timeout=600)

    def work() -> None:
        try:
            results.append(team.run(QUESTIONS, record="report", executor=executor, on_event=meet))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=work) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == [] and results[0].texts == results[1].texts
    assert "feed" not in vars(executor)
    for result in results:
        assert result.record is not None
        assert any(turn.prompt_seconds > 0 for turn in result.record.turns)


# --- rows that cannot be run ------------------------------------------------------------------

LONG = "word " * 9_000


def test_one_long_row_among_many_costs_no_other(team: lm.System):
    rows = [f"{n} + 1?" for n in range(101)]
    rows[57] = LONG
    result = team.run(rows, on_error="keep", record=("messages", "states", "report"))
    assert list(result.errors) == [57]
    assert isinstance(result.errors[57], lm.DataError)
    assert re.search(
        r"sample 57: agent 'planner': a prompt of \d+ positions", str(result.errors[57])
    )
    assert len(result.texts) == 101 and result.texts[57] == "" and result.token_ids[57] == []
    assert result.sequences[57] == [] and result.finish_reasons[57] == []
    others = [n for n in range(101) if n != 57]
    alone = team.run([rows[n] for n in others], record=("messages", "states"))
    assert [result.token_ids[n] for n in others] == alone.token_ids
    assert counts(result) == counts(alone)
    for kind in ("messages", "states"):
        for name, value in getattr(result, kind).items():
            assert value[57].isnan().all()
            assert torch.allclose(value[others], getattr(alone, kind)[name], atol=1e-4)


def counts(result: lm.RunResult) -> list[tuple[object, ...]]:
    return [
        (r.round, r.agent, r.op, r.samples, r.prompt_tokens, r.latent_steps, r.new_tokens)
        for r in result.accounting
    ]


def test_the_report_shows_what_failed(team: lm.System, tmp_path: Path):
    rows = [LONG, {"qestion": "?"}, "fine", "too"]
    result = team.run(rows, on_error="keep", record="report")
    page = result.report(tmp_path / "run.html", twin=result).read_text()
    assert "failed: sample 0: agent" in page and "failed: sample 1 lacks the field" in page
    assert "2 failed in all" in page and "sample 3" in page
    assert result.record is not None
    assert [bool(near) for near in result.record.readings[0].nearest] == [False, False, True]


def test_every_bad_row_is_named_before_anything_runs(team: lm.System):
    events = list[object]()
    rows = ["fine", LONG, {"qestion": "?"}, {"question": None}, LONG]
    with pytest.raises(lm.DataError) as caught:
        team.run(rows, on_event=events.append)
    told = str(caught.value)
    assert told.startswith("4 of 5 samples cannot be run:")
    for words in ("sample 1: agent", "sample 2 lacks", "sample 3: the field", "sample 4: agent"):
        assert words in told
    assert 'on_error="keep"' in told and events == []
    with pytest.raises(lm.LatentMASError, match="unknown on_error 'skip'; known: raise, keep"):
        team.run(rows, on_error="skip")


def test_prompts_that_fail_are_named_with_their_row():
    graph = lm.Graph("sums", inputs=["n"], rounds=1, latent_steps=2)
    graph.add_agent("solver", tiny("llama", 16), prompt="{{ 10 // n }}")
    system = graph.output("solver").compile().load()
    result = system.run([{"n": 2}, {"n": 0}, {"n": 5}], on_error="keep", max_new_tokens=2)
    assert list(result.errors) == [1]
    assert "sample 1: the prompt of agent 'solver' cannot be rendered" in str(result.errors[1])


def test_failures_while_it_runs_are_kept_for_their_rows_alone():
    """Text that an agent or a function makes is known only then."""

    def notes(sample: dict[str, str]) -> str:
        if "bad" in sample["question"]:
            raise RuntimeError("no notes")
        return LONG if "long" in sample["question"] else "N"

    graph = lm.Graph("noted", inputs=["question"], rounds=2, latent_steps=2)
    graph.add_text_source("notes", notes)
    small = tiny("llama", 16)
    graph.add_agent("planner", small, prompt="{{ question }}{% if back %}{{ back }}{% endif %}")
    graph.add_agent("solver", small, prompt="{{ notes }} {{ planner }}")
    graph.connect("planner", "solver")
    graph.connect("notes", "solver")
    graph.feedback("solver", "planner.back")
    system = graph.output("solver").compile().load()
    rows = ["a", "bad", "ccc", "long", "e", "f", "bad again"]
    with system.tap("planner->solver") as tap:
        result = system.run(
            rows, on_error="keep", max_new_tokens=3, batch_size=3, refill_threshold=0.5
        )
    assert list(result.errors) == [1, 3, 6]  # in order, though batches fail in another one
    good = [0, 2, 4, 5]
    alone = system.run([rows[n] for n in good], max_new_tokens=3, batch_size=3)
    assert [result.texts[n] for n in good] == alone.texts and counts(result) == counts(alone)
    assert {len(message) for message in tap.messages.values()} == {4}
    error = result.errors[3]
    assert isinstance(error, lm.ExecutionError) and error.agent == "solver"
    assert isinstance(error.__cause__, lm.DataError) and error.__traceback__ is None
    with pytest.raises(lm.ExecutionError, match="sample 1"):
        system.run(rows, max_new_tokens=3)


def test_a_tool_that_cannot_work_fails_its_rows_alone():
    def search(question: str) -> str:
        """Looks it up."""
        raise lm.LatentMASError("no key for the search service")

    graph = lm.Graph("one", inputs=["question"], rounds=1, latent_steps=2)
    graph.add_agent("solver", tiny("llama", 16), prompt="{{ question }}", tools=[search])
    system = graph.output("solver").compile().load()
    scripts = {"plain": says("It is 8."), "call": says("<search>x</search>", "Done.")}
    ended = list[SampleEnd]()

    def watch(event: object) -> None:
        if isinstance(event, SampleEnd):
            ended.append(event)

    with scripted(scripts) as name:
        result = system.run(
            ["plain", "call", "plain", "plain", "call"],
            on_error="keep", executor=name, max_new_tokens=40, on_event=watch,
        )  # fmt: skip
    assert sorted(result.errors) == [1, 4]
    assert result.texts == ["It is 8.", "", "It is 8.", "It is 8.", ""]
    assert sum(r.samples for r in result.accounting) == 3
    assert sorted(event.sample for event in ended) == [0, 1, 2, 3, 4]
    assert {event.sample for event in ended if event.error} == {1, 4}


def test_a_watcher_that_fails_ends_the_run_whatever_is_kept(team: lm.System):
    def failing(sample: int, text: str) -> None:
        raise RuntimeError("the screen is gone")

    with pytest.raises(lm.LatentMASError, match="the screen is gone"):
        team.run(QUESTIONS, on_text=failing, on_error="keep", max_new_tokens=4)


def test_samples_end_one_by_one_with_reasons():
    system, ended = chatty().compile().load(), list[SampleEnd]()
    scripts = {"brief": says("No."), "long": says("and so on" * 9)}

    def watch(event: object) -> None:
        if isinstance(event, SampleEnd):
            ended.append(event)
        elif isinstance(event, lm.runtime.Token) and event.sample == 0:
            assert [e.sample for e in ended] in ([], [1])
            seen.append(len(ended))

    seen = list[int]()
    with scripted(scripts) as name:
        result = system.run(["long", "brief"], executor=name, max_new_tokens=20, on_event=watch)
    assert seen[-1] == 1, "the brief row is told of while the long one writes"
    assert result.finish_reasons == [["length"], ["stop"]]
    assert [(e.sample, e.texts[0], e.finish_reasons) for e in ended] == [
        (1, result.texts[1], ("stop",)),
        (0, result.texts[0], ("length",)),
    ]


def test_a_run_whose_rows_all_fail_is_still_a_result(team: lm.System):
    result = team.run([LONG, LONG], on_error="keep", record="report")
    assert sorted(result.errors) == [0, 1] and result.texts == ["", ""] and result.accounting == []
