"""Runs: what wins, what is recorded, and what two threads may share."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest

import latentmas as lm
from latentmas.io import RunManifest
from latentmas.runtime import executors
from latentmas.runtime.writing import Draft
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
    decoded, decode = list[object](), Draft._text

    def counting(self: Draft, ids: list[int]) -> str:
        decoded.append(ids)
        return decode(self, ids)

    monkeypatch.setattr(Draft, "_text", counting)
    team.run(QUESTIONS)
    assert len(decoded) == len(QUESTIONS)


def test_two_threads_may_record_reports_with_one_executor(team: lm.System):
    executor = executors.get("cached")()
    both, results, failed = threading.Barrier(2), list[lm.RunResult](), list[BaseException]()

    def meet(event: object) -> None:
        if isinstance(event, lm.runtime.RunBegin):
            both.wait(timeout=60)

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
