"""Engines of evaluations without their clusters: tasks, workers, replies, parts, errors."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import latentmas as lm
from latentmas.cli.app import app
from latentmas.errors import (
    DataError,
    ExecutionError,
    LatentMASError,
    UnknownNameError,
    WeightsError,
)
from latentmas.evaluation import (
    Engine,
    TorchrunEngine,
    engines,
    evaluate,
    open_engine,
    read_evaluation,
)
from latentmas.evaluation.engines._calls import (
    Call,
    Failure,
    Ledger,
    Reply,
    make_calls,
    take_replies,
    task_size,
)
from latentmas.evaluation.engines._cluster import Needs
from latentmas.evaluation.engines._packing import Payload, pack_works
from latentmas.evaluation.engines._worker import TeamWorker, lost_reply
from latentmas.evaluation.runner import RowStore, Work, as_one_run
from latentmas.runtime import SampleEnd, ToolCall
from latentmas.tools import Tool, tools
from tests.contracts.test_engines import GIVEN, ROWS, plain
from tests.teams import sequential, tiny

KINDS = engines.names()


@pytest.fixture(scope="module")
def team() -> lm.System:
    return sequential(rounds=1, latent_steps=2, max_new_tokens=4).compile().load()


@pytest.fixture(scope="module")
def whole(team: lm.System, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """An evaluation in one process, row by row."""
    path = tmp_path_factory.mktemp("whole") / "rows.jsonl"
    evaluate(team, ROWS, output=path, **GIVEN)
    return plain(path)


class Apart(Engine):
    """Workers that share nothing but messages, without a cluster; some of them die."""

    name = "apart"

    def __init__(
        self,
        *,
        deaths: int = 0,
        attempts: int = 3,
        change: Callable[[Payload], Payload] = lambda payload: payload,
    ) -> None:
        self.deaths, self.attempts, self.change = deaths, attempts, change

    def run(self, works: Iterable[Work]) -> None:
        todo = list(works)
        self.payload = self.change(pack_works(todo, device="cpu"))
        with as_one_run(todo):
            calls = list(make_calls(todo, 2))
            random.Random(0).shuffle(calls)
            take_replies(self.replies(calls), todo)

    def replies(self, calls: list[Call]) -> Iterator[str]:
        ledger, worker, left = Ledger(), TeamWorker(self.payload), self.deaths
        while calls:
            call = calls.pop()
            begun = ledger.begin(call.number)
            if begun > self.attempts:
                yield lost_reply(call, self.attempts).to_json()
                continue
            reply = worker.answer(call, attempt=begun)
            if left:  # the answer is lost with the worker, and another worker begins again
                left, worker = left - 1, TeamWorker(self.payload)
                calls.append(call)
                continue
            yield reply.to_json()
            yield reply.to_json()  # a reply may come twice


@pytest.mark.parametrize("deaths", [0, 2])
def test_rows_of_workers_are_those_of_one_process(team, whole, tmp_path, deaths):
    path = tmp_path / "rows.jsonl"
    evaluate(team, ROWS, output=path, engine=Apart(deaths=deaths), **GIVEN)
    assert plain(path) == whole


def test_rows_that_kill_their_workers_are_given_up(team, tmp_path, caplog):
    path, deadly = tmp_path / "rows.jsonl", Apart(deaths=2, attempts=2)
    options: dict[str, Any] = {"batch_size": 2, "output": path}
    with pytest.raises(LatentMASError, match=r"of team: the worker process ended 2 times"):
        evaluate(team, ROWS, engine=deadly, **options)
    kept = Apart(deaths=2, attempts=2)
    found = evaluate(team, ROWS, engine=kept, resume=True, on_error="keep", **options)
    assert found.rows == len(ROWS) and 2 <= len(found.errors) <= 4
    assert "killed, or out of memory" in str(next(iter(found.errors.values())))
    resumed = evaluate(team, ROWS, resume=True, **options)
    assert not resumed.errors


def broken(job: str = "team", **changes: Any) -> Callable[[Payload], Payload]:
    return lambda payload: Payload(**vars(payload) | changes)


def test_a_worker_that_cannot_load_says_why_once(team, tmp_path):
    def without_files(payload: Payload) -> Payload:
        packed = type(payload.teams[0])(**vars(payload.teams[0]) | {"files": {}})
        return Payload(**vars(payload) | {"teams": [packed]})

    with pytest.raises(WeightsError, match="LM502") as caught:
        evaluate(team, ROWS, engine=Apart(change=without_files), output=tmp_path / "rows.jsonl")
    assert "Traceback" not in str(caught.value)
    assert any("Traceback of worker" in note for note in caught.value.__notes__)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": "0.0.1"}, "was started with 0.0.1; install the same version"),
        ({"modules": ["not_a_module"]}, "module 'not_a_module' cannot be imported on this worker"),
        ({"plugins": {"mine.py": b"1 / 0"}}, "plugin 'mine.py' fails on this worker: ZeroDivision"),
    ],
)
def test_a_worker_with_other_code_says_so(team, changes, message):
    with pytest.raises(LatentMASError, match=message):
        evaluate(team, ROWS, engine=Apart(change=broken(**changes)))


def test_a_worker_with_other_links_is_noticed(team):
    def other_links(payload: Payload) -> Payload:
        job = payload.jobs["team"]
        links = dict.fromkeys(job.settings["links"], "0" * 64)
        changed = type(job)(**vars(job) | {"settings": {**job.settings, "links": links}})
        return Payload(**vars(payload) | {"jobs": {"team": changed}})

    with pytest.raises(LatentMASError, match="differs from the one that was sent in its links"):
        evaluate(team, ROWS, engine=Apart(change=other_links))


def test_an_error_that_is_not_ours_names_its_class_and_the_worker(team, monkeypatch, tmp_path):
    def run(self: lm.System, *_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: device-side assert")

    engine = Apart()
    with monkeypatch.context() as patch:
        patch.setattr(lm.System, "run", run)
        with pytest.raises(LatentMASError, match=r"RuntimeError: CUDA error: .* \(on worker .+:"):
            evaluate(team, ROWS, engine=engine, output=tmp_path / "rows.jsonl")


def test_plugins_travel(tmp_path):
    source = (
        "import latentmas.tools as t\n"
        "@t.tools.register('shout')\n"
        "def shout(text: str) -> str:\n"
        "    'Shout.\\n\\nArgs:\\n    text: what.'\n"
        "    return text.upper()\n"
    )
    payload = Payload(
        version=version("latentmas"),
        device="cpu",
        plugins={"shouting.py": source.encode()},
        modules=[],
        teams=[],
        jobs={},
        objects=b"\x80\x04}\x94.",
    )
    reply = TeamWorker(payload).answer(Call(number=0, job="x", rows=[0], samples=[{}], options={}))
    assert reply.failure is not None and reply.failure.kind == "KeyError"  # the code comes first
    assert "shout" in tools.names()
    del sys.modules["latentmas_plugin_shouting"], tools._entries["shout"]


def test_what_cannot_travel_is_refused():
    tool: Tool = lambda text: text  # noqa: E731
    tool.__name__, tool.__doc__ = "echo", "Echo.\n\nArgs:\n    text: what."
    tool.__annotations__ = {"text": str, "return": str}
    graph = lm.Graph("tooled", inputs=["question"], latent_steps=1)
    graph.add_agent("solver", tiny("qwen3", 16), prompt="{{ question }}", tools=[tool])
    graph.output("solver")
    with pytest.raises(LatentMASError, match="a tool or text function cannot be sent"):
        evaluate(graph.compile().load(), ROWS, engine=Apart())
    team = sequential(rounds=1, latent_steps=2).compile().load()
    with team.tap("planner->critic"), pytest.raises(LatentMASError, match="has a tap"):
        evaluate(team, ROWS, engine=Apart())


def test_replies_survive_json():
    reply = Reply(number=3, job="team", rows=[1, 2], worker="here:1", failure=Failure("X", "y"))
    error = ExecutionError("sample 1: it failed", step=2, agent="solver", round=1)
    call = ToolCall("add", {"a": 1}, "2", 0.5)
    reply.add(1, SampleEnd(0, error=error), 0.25)
    reply.add(2, SampleEnd(1, texts=("\ud800é",), token_ids=((5, 6),), tool_calls=(call,)), 0.5)
    found = Reply.from_json(reply.to_json())
    assert found.to_json() == reply.to_json() and found.failure == reply.failure
    (one, failed, _), (two, end, seconds) = found.ends()
    assert (one, two, seconds) == (1, 2, 0.5) and str(failed.error) == str(error)
    assert (end.texts, end.token_ids, end.tool_calls) == (("\ud800é",), ((5, 6),), (call,))


def test_a_missing_row_is_noticed(team, tmp_path):
    class Forgets(Apart):
        def replies(self, calls: list[Call]) -> Iterator[str]:
            calls.pop()
            return super().replies(calls)

    with pytest.raises(LatentMASError, match=r"has ended without \d+ rows of team"):
        evaluate(team, ROWS, engine=Forgets(), output=tmp_path / "rows.jsonl", batch_size=2)


def test_tasks_are_small_enough_for_all_workers():
    assert [task_size(batches, 2) for batches in (1, 8, 16, 63, 10**6)] == [1, 1, 2, 7, 8]


# --- engines by name ----------------------------------------------------------------------------


def test_engines_are_opened_by_name(team):
    assert {"local", "ray", "torchrun"} <= set(KINDS)
    assert open_engine("ray", workers=3).options == {"workers": 3}
    with pytest.raises(UnknownNameError, match="did you mean 'torchrun'"):
        open_engine("torchrum")
    with pytest.raises(TypeError, match="did you mean 'workers'"):
        open_engine("ray", worker=3)
    with pytest.raises(TypeError, match="belong to an engine given by name"):
        open_engine(Apart(), workers=3)
    with pytest.raises(LatentMASError, match="engine is a int; give a name"):
        evaluate(team, ROWS, engine=3)  # type: ignore[arg-type]
    with pytest.raises(LatentMASError, match="leave out engine 'ray'"):
        evaluate(team, ROWS, engine="ray", manifest="run.json")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": 0}, "workers is 0"),
        ({"gpus_per_worker": -1}, "gpus_per_worker is -1"),
        ({"attempts": 0}, "attempts is 0"),
    ],
)
def test_options_of_ray_are_checked(options, message):
    with pytest.raises(LatentMASError, match=message):
        open_engine("ray", **options)


@pytest.mark.parametrize(
    ("needs", "resources", "gpu", "found"),
    [
        (Needs(), {"CPU": 2.0}, False, (1, 0.0, 0.5)),
        (Needs(workers=2), {"CPU": 2.0}, False, (2, 0.0, 0.5)),
        (Needs(workers=4), {"CPU": 2.0}, False, (4, 0.0, 0.25)),
        (Needs(workers=2), {"CPU": 1.0}, False, (2, 0.0, 0.0)),
        (Needs(), {"CPU": 64.0, "GPU": 8.0}, True, (8, 1.0, 0.0)),
        (Needs(gpus=0.5), {"CPU": 64.0, "GPU": 2.0}, True, (4, 0.5, 0.0)),
        (Needs(workers=3, cpus=4), {"CPU": 16.0}, False, (3, 0.0, 4)),
    ],
)
def test_workers_leave_ray_a_cpu(needs, resources, gpu, found):
    workers = needs.settle(resources, gpu=gpu)
    assert (workers.count, workers.gpus, workers.cpus) == found


@pytest.mark.parametrize(
    ("needs", "gpu", "message"),
    [
        (Needs(workers=2), True, "2 workers with 1 GPU each need 2 GPUs, and the cluster has 1"),
        (Needs(workers=2, cpus=2), False, "need 4 CPUs, and the cluster has 4, of which Ray needs"),
    ],
)
def test_too_small_a_cluster_is_an_error_not_a_wait(needs, gpu, message):
    with pytest.raises(LatentMASError, match=message):
        needs.settle({"CPU": 4.0, "GPU": 1.0}, gpu=gpu)


def test_without_ray_the_error_says_what_to_install(team, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(LatentMASError, match=r"pip install 'latentmas\[ray\]'"):
        evaluate(team, ROWS, engine="ray", output=tmp_path / "rows.jsonl")


# --- the command line ---------------------------------------------------------------------------


@pytest.fixture
def files(team: lm.System, tmp_path: Path) -> tuple[str, ...]:
    team.save_pretrained(tmp_path / "team")
    data = tmp_path / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return ("eval", str(tmp_path / "team"), "--data", str(data), "-o", str(tmp_path / "own.jsonl"))


def call(*arguments: str, code: int = 0) -> Any:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


def test_processes_of_a_launcher_share_the_rows(files, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    first = call(*files)
    assert first.stdout == "" and "5 of 10 rows are finished" in first.stderr
    monkeypatch.setenv("RANK", "0")
    assert json.loads(call(*files, "--json").stdout)["rows"] == 10
    assert len(plain(tmp_path / "own.jsonl")) == 10
    error = call(*files, "--shard", "0/2", "--engine", "torchrun", code=2).stderr
    assert "leave out --shard" in " ".join(error.replace("│", " ").split())


def test_options_reach_the_engine(files, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    ray = ("--engine", "ray", "--workers", "2", "--num-gpus-per-worker", "1")
    assert "pip install 'latentmas[ray]'" in call(*files, *ray, code=1).stderr
    wrong = call(*files, *ray, "--engine-option", "attempt=2", code=1).stderr
    assert "did you mean 'attempts'" in wrong
    error = call(*files, "--workers", "2", code=2).stderr
    assert "--workers requires --engine ray" in " ".join(error.replace("│", " ").split())
    assert "did you mean 'torchrun'" in call(*files, "--engine", "torchrum", code=1).stderr


# --- torchrun -----------------------------------------------------------------------------------


def shares(team: lm.System, path: Path, ranks: Iterable[int], count: int, **more: Any) -> Any:
    for rank in ranks:
        engine = TorchrunEngine(rank=rank, world_size=count)
        found = evaluate(team, ROWS, output=path, engine=engine, **GIVEN, **more)
    return found


def test_the_last_process_joins_the_parts(team, whole, tmp_path):
    path = tmp_path / "rows.jsonl"
    own = shares(team, path, [2, 0], 3)
    assert own.rows < len(ROWS) and not path.exists()
    assert len(list(tmp_path.glob("rows.jsonl.part-*-of-3"))) == 2
    found = shares(team, path, [1], 3)
    assert found.rows == len(ROWS) and plain(path) == whole
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows.jsonl", "rows.jsonl.settings.json"]
    again = shares(team, path, [0], 1, resume=True)
    assert again.score == found.score == read_evaluation(path).score and plain(path) == whole


def test_other_processes_continue_where_some_were_killed(team, whole, tmp_path):
    path = tmp_path / "rows.jsonl"
    shares(team, path, [0, 1], 3)
    part = tmp_path / "rows.jsonl.part-1-of-3"
    lines = part.read_bytes().splitlines(keepends=True)
    part.write_bytes(b"".join(lines[:7]) + lines[7][:50])
    with pytest.raises(DataError, match="part-0-of-3' holds rows of an earlier evaluation"):
        shares(team, path, [0], 2)
    with pytest.raises(DataError, match=r"temperature was 2\.0, now 1\.0"):
        engine = TorchrunEngine(rank=0, world_size=2)
        evaluate(
            team, ROWS, output=path, engine=engine, resume=True, **GIVEN | {"temperature": 1.0}
        )
    shares(team, path, [1, 0], 2, resume=True)
    assert plain(path) == whole


def test_a_launcher_that_starts_again_continues(team, whole, tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    shares(team, path, [0], 2)
    with pytest.raises(DataError, match="holds rows of an earlier evaluation"):
        shares(team, path, [0], 2)
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    shares(team, path, [0, 1], 2)
    assert plain(path) == whole


def test_parts_are_not_joined_while_a_process_writes(team, whole, tmp_path):
    path = tmp_path / "rows.jsonl"
    shares(team, path, [0], 2)
    with RowStore(tmp_path / "rows.jsonl.part-0-of-2"):
        own = shares(team, path, [1], 2)
    assert own.rows < len(ROWS) and not path.exists()
    shares(team, path, [1], 2, resume=True)
    assert plain(path) == whole


def test_missing_last_rows_are_noticed(team, tmp_path):
    path = tmp_path / "rows.jsonl"
    for rank in (0, 1):
        if rank == 1:
            part = tmp_path / "rows.jsonl.part-0-of-2"
            kept = [line for line in part.read_text().splitlines() if json.loads(line)["row"] < 8]
            part.write_text("".join(f"{line}\n" for line in kept))
        engine = TorchrunEngine(rank=rank, world_size=2)
        evaluate(team, ROWS[:9], output=path, engine=engine, batch_size=3)
    assert not path.exists()


def test_processes_without_rows_are_refused(team, tmp_path):
    with pytest.raises(DataError, match="10 rows cannot be divided among 11 processes"):
        evaluate(
            team,
            ROWS,
            output=tmp_path / "rows.jsonl",
            engine=TorchrunEngine(rank=0, world_size=11),
        )
    with pytest.raises(DataError, match="4 batches of the control shuffled cannot be divided"):
        shares(team, tmp_path / "rows.jsonl", [0], 5)
    with pytest.raises(LatentMASError, match="needs output"):
        evaluate(team, ROWS, engine=TorchrunEngine(rank=0, world_size=2))


def test_a_process_knows_its_place(monkeypatch):
    with pytest.raises(LatentMASError, match="RANK is None; start the command with a launcher"):
        TorchrunEngine()
    monkeypatch.setenv("RANK", "3")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    engine = TorchrunEngine()
    assert (engine.rank, engine.world_size) == (3, 4)
    assert [engine.place(one) for one in ("cuda", "cuda:0", "cpu")] == ["cuda:1", "cuda:0", "cpu"]
    with pytest.raises(LatentMASError, match="rank 4 of 4 processes does not exist"):
        TorchrunEngine(rank=4)
