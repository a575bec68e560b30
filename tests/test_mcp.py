"""The MCP server, asked by the client of the package mcp: over stdio, HTTP and in memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
import uvicorn
from mcp import Client, MCPError, StdioServerParameters, stdio_client
from typer.testing import CliRunner

import latentmas as lm
from latentmas.cli.app import app
from latentmas.plan import RunOptions
from latentmas.runtime import System
from latentmas.serve.mcp import team_server
from latentmas.testing import tiny_backbone
from tests.playground import lively, served

ROOT = Path(__file__).parent.parent
QUESTION = "What is 3 + 4?"
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def system() -> System:
    return lively()


@pytest.fixture(scope="module")
def team(system: System, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return system.save_pretrained(tmp_path_factory.mktemp("mcp") / "team")


def asked(client: Any, ask: Callable[[Client], Awaitable[Any]]) -> Any:
    """What a function of a connected client returns."""

    async def run() -> Any:
        async with Client(client) as connected:
            return await ask(connected)

    return anyio.run(run)


def text_of(result: Any) -> str:
    (part,) = result.content
    return str(part.text)


# ── over stdio ────────────────────────────────────────────────────────────────────────────────


def test_a_client_asks_a_team_over_stdio(team: Path, system: System):
    program = ["-m", "latentmas", "mcp", str(team), "--max-new-tokens", "5"]
    server = StdioServerParameters(command=sys.executable, args=program, env=ENVIRONMENT)
    progress: list[tuple[float, float | None, str | None]] = []

    async def note(*done: Any) -> None:
        progress.append(done)

    async def ask(client: Client) -> Any:
        tools = (await client.list_tools()).tools
        plain = await client.call_tool(tools[0].name, {"question": QUESTION})
        sizes = {"rounds": 1, "latent_steps": 2, "max_new_tokens": 3}
        more = await client.call_tool(
            tools[0].name, {"question": QUESTION, **sizes}, progress_callback=note
        )
        wrong = await client.call_tool(tools[0].name, {"qestion": QUESTION})
        return tools, plain, more, wrong

    tools, plain, more, wrong = asked(stdio_client(server), ask)
    (tool,) = tools
    assert tool.name == "sequential"
    schema = tool.input_schema
    assert schema["required"] == ["question"]
    assert list(schema["properties"]) == ["question", "rounds", "latent_steps", "max_new_tokens"]
    expected = system.run([QUESTION], max_new_tokens=5)
    assert text_of(plain) == expected.text == plain.structured_content["answer"]
    assert plain.structured_content["new_tokens"] == len(expected.token_ids[0])
    assert plain.structured_content["latent_steps"] == 3 * 5
    assert text_of(more) == system.run([QUESTION], rounds=1, latent_steps=2, max_new_tokens=3).text
    steps = len(system.plan.replace(rounds=1).steps)
    assert [done for done, *_ in progress] == list(range(1, steps + 1))
    assert progress[0] == (1, steps, "round 1: planner")
    assert wrong.is_error
    assert "unknown argument 'qestion'; did you mean 'question'?" in text_of(wrong)
    assert "the argument 'question' is missing" in text_of(wrong)


def test_stdout_holds_messages_alone(tmp_path: Path):
    """A graph file warns of untrained links, and that goes elsewhere."""
    model = tiny_backbone("llama", 16, folder=tmp_path / "model")
    graph = lm.templates.distillation(
        expert=model, learner=model, rounds=1, latent_steps=1, link="recursive", inner="recursive"
    )
    graph.save(tmp_path / "team.yaml")
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}}
    hello["clientInfo"] = {"name": "test", "version": "0"}
    ask = {"name": "distillation", "arguments": {"question": QUESTION, "max_new_tokens": 2}}
    sent: list[dict[str, Any]] = [
        {"id": 1, "method": "initialize", "params": hello},
        {"method": "notifications/initialized"},
        {"id": 2, "method": "tools/call", "params": ask},
    ]
    process = subprocess.Popen(
        [sys.executable, "-m", "latentmas", "mcp", str(tmp_path / "team.yaml")],
        env=ENVIRONMENT, text=True, bufsize=1,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdin is not None and process.stdout is not None
    for message in sent:
        process.stdin.write(json.dumps({"jsonrpc": "2.0", **message}) + "\n")
    lines = [process.stdout.readline() for _ in range(2)]
    rest, noise = process.communicate(timeout=600)
    replies = [json.loads(line) for line in [*lines, *rest.splitlines()]]
    assert [reply["id"] for reply in replies] == [1, 2]
    assert replies[1]["result"]["isError"] is False
    assert "links are untrained" in noise
    assert process.returncode == 0


# ── in memory ─────────────────────────────────────────────────────────────────────────────────


def test_a_team_without_the_tool_that_is_called(system: System):
    async def ask(client: Client) -> None:
        with pytest.raises(MCPError, match="unknown tool 'poet'; this server has 'sequential'"):
            await client.call_tool("poet", {})

    asked(team_server(system), ask)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"question": 3}, "question is 3; give a text"),
        ({"question": "?", "rounds": 0}, "rounds is 0; give a whole number of at least 1"),
        ({"question": "?", "rounds": True}, "rounds is True; give a whole number"),
        ({"question": "?", "rounds": 9}, "rounds is 9; this server allows at most 8"),
        ({"question": "?", "temperature": 2}, "unknown argument 'temperature'; arguments: "),
        ({"question": "x" * 9000}, "exceed the 4096 positions of backbone"),
    ],
)
def test_what_is_wrong_is_the_tools_answer(system: System, arguments: Any, said: str):
    result = asked(team_server(system), lambda client: client.call_tool("sequential", arguments))
    assert result.is_error
    assert said in text_of(result)


def test_what_the_server_does_wrong_is_not_shown_in_full(
    system: System, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(System, "run", fail)
    call = {"question": QUESTION}
    result = asked(team_server(system), lambda client: client.call_tool("sequential", call))
    assert result.is_error
    assert text_of(result) == "the server failed with RuntimeError; its log says more"


def test_calls_run_one_after_another(system: System, monkeypatch: pytest.MonkeyPatch):
    run, inside, most = System.run, threading.Semaphore(1), list[bool]()

    def alone(self: System, *given: Any, **options: Any) -> Any:
        most.append(inside.acquire(blocking=False))
        result = run(self, *given, **options)
        inside.release()
        return result

    monkeypatch.setattr(System, "run", alone)
    answers: dict[int, str] = {}

    async def ask(client: Client) -> None:
        async def one(count: int) -> None:
            call = {"question": QUESTION, "max_new_tokens": count}
            answers[count] = text_of(await client.call_tool("sequential", call))

        async with anyio.create_task_group() as group:
            for count in range(1, 5):
                group.start_soon(one, count)

    asked(team_server(system), ask)
    assert most == [True] * 4
    for count, text in answers.items():
        assert text == run(system, [QUESTION], max_new_tokens=count).text


def test_a_cancelled_call_ends_its_run(system: System, monkeypatch: pytest.MonkeyPatch):
    run, begun, ended = System.run, threading.Event(), list[str]()

    def noted(self: System, *given: Any, on_event: Any, **options: Any) -> Any:
        def slowed(event: Any) -> None:  # so that the run is not over before it is cancelled
            begun.set()
            time.sleep(0.05)
            on_event(event)

        try:
            result = run(self, *given, on_event=slowed, **options)
        except BaseException:
            ended.append("stopped")
            raise
        ended.append("finished")
        return result

    monkeypatch.setattr(System, "run", noted)

    async def ask(client: Client) -> Any:
        call = {"question": QUESTION, "max_new_tokens": 1024}
        with anyio.fail_after(600):
            async with anyio.create_task_group() as group:
                group.start_soon(client.call_tool, "sequential", call)
                await anyio.to_thread.run_sync(begun.wait)
                group.cancel_scope.cancel()
            while not ended:
                await anyio.sleep(0.05)
        short = {"question": QUESTION, "max_new_tokens": 1}
        return await client.call_tool("sequential", short)

    result = asked(team_server(system), ask)
    assert not result.is_error
    assert ended == ["stopped", "finished"]


def test_options_of_the_command_line_hold_for_every_call(system: System):
    options = RunOptions(do_sample=True, temperature=3.0, seed=5, max_new_tokens=4)
    call = {"question": QUESTION}
    result = asked(
        team_server(system, options), lambda client: client.call_tool("sequential", call)
    )
    assert text_of(result) == system.run([QUESTION], options=options).text
    assert text_of(result) != system.run([QUESTION], max_new_tokens=4).text


def test_an_input_may_be_named_like_an_option():
    model = tiny_backbone("llama", 16)
    graph = lm.Graph("Tim's team!", inputs=["rounds"], rounds=1, latent_steps=1)
    graph.add_agent("solver", model, prompt="{{ rounds }}", max_new_tokens=2)
    system = graph.output("solver").compile().load()

    async def ask(client: Client) -> Any:
        (tool,) = (await client.list_tools()).tools
        return tool, await client.call_tool(tool.name, {"rounds": "three"})

    tool, result = asked(team_server(system), ask)
    assert tool.name == "Tim-s-team"
    assert tool.input_schema["properties"]["rounds"]["type"] == "string"
    assert text_of(result) == system.run(["three"]).text


# ── over HTTP ─────────────────────────────────────────────────────────────────────────────────


def test_a_client_asks_a_team_over_http(
    team: Path, system: System, monkeypatch: pytest.MonkeyPatch
):
    """The command's own application, on a free port of this test's choice."""
    given: dict[str, Any] = {}
    monkeypatch.setattr(uvicorn, "run", lambda app, **more: given.update(app=app, **more))
    done = CliRunner().invoke(app, ["mcp", str(team), "--http", "8765"])
    assert done.exit_code == 0, done.output
    assert (given["host"], given["port"]) == ("127.0.0.1", 8765)
    with served(given["app"], lifespan="on") as address:
        call = {"question": QUESTION, "max_new_tokens": 3}
        result = asked(f"{address}/mcp", lambda client: client.call_tool("sequential", call))
    assert text_of(result) == system.run([QUESTION], max_new_tokens=3).text
