"""A team as a tool for other agents: an MCP server with one tool, which asks the team.

The Model Context Protocol (MCP) is how assistants and agent frameworks call tools. The tool's
arguments are the graph's inputs, and the sizes of the run.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from latentmas.errors import DataError, LatentMASError, closest
from latentmas.plan import Plan, RunOptions
from latentmas.redact import get_logger
from latentmas.runtime import Event, RunEnd, RunResult, StepEnd, System
from latentmas.serve.costs import COSTS, costs_of
from latentmas.serve.limits import beyond, limits_of

if TYPE_CHECKING:
    from mcp.server.lowlevel import Server

__all__ = ["serve_http", "serve_stdio", "team_server"]

log = get_logger("latentmas.serve.mcp")


class _StoppedError(Exception):
    """The client has cancelled the call."""


def serve_stdio(system: System, options: RunOptions | None = None) -> None:
    """Serve a team over stdin and stdout until the client closes them.

    Args:
        system: Team to ask.
        options: Options of each run; arguments of a call replace its sizes.

    Raises:
        LatentMASError: The package mcp is not installed.
    """
    server = team_server(system, options)
    import anyio
    from mcp.server.stdio import stdio_server

    async def serve() -> None:
        async with stdio_server() as (reading, writing):
            await server.run(reading, writing, server.create_initialization_options())

    anyio.run(serve)


def serve_http(system: System, port: int, options: RunOptions | None = None) -> None:
    """Serve a team at `http://127.0.0.1:PORT/mcp`, for clients on this machine.

    Args:
        system: Team to ask.
        port: Port to listen on.
        options: Options of each run; arguments of a call replace its sizes.

    Raises:
        LatentMASError: The package mcp is not installed.
    """
    server = team_server(system, options)
    import uvicorn

    uvicorn.run(server.streamable_http_app(), host="127.0.0.1", port=port, log_level="warning")


def team_server(system: System, options: RunOptions | None = None) -> Server[Any]:
    """An MCP server with one tool, named after the team's graph.

    Calls run one after another. What goes wrong in a call is the tool's result, marked as an error,
    so that the calling model can read it and try again.

    Args:
        system: Team to ask.
        options: Options of each run; arguments of a call replace its sizes.

    Raises:
        LatentMASError: The package mcp is not installed.
    """
    try:
        from mcp.server.lowlevel import Server
    except ImportError as error:
        raise LatentMASError(
            "the MCP server needs the package mcp; install it with pip install 'latentmas[mcp]'"
        ) from error
    import anyio
    from mcp import MCPError
    from mcp.types import INVALID_PARAMS, CallToolResult, ListToolsResult, TextContent, Tool

    from latentmas import __version__

    plan, defaults, turn = system.plan, options or RunOptions(), anyio.Lock()
    tool = Tool(**tool_of(plan))

    async def list_tools(ctx: Any, params: Any) -> ListToolsResult:
        return ListToolsResult(tools=[tool])

    async def call_tool(ctx: Any, params: Any) -> CallToolResult:
        if params.name != tool.name:
            message = f"unknown tool {params.name!r}; this server has {tool.name!r}"
            raise MCPError(INVALID_PARAMS, message)
        try:
            sample, asked = read_call(plan, params.arguments or {}, defaults)
            async with turn:
                result = await _run(system, sample, asked, ctx.session.report_progress)
        except LatentMASError as error:
            return CallToolResult(content=[TextContent(text=str(error))], is_error=True)
        except Exception as error:
            log.error("a call of the tool failed", exc_info=error)
            message = f"the server failed with {type(error).__name__}; its log says more"
            return CallToolResult(content=[TextContent(text=message)], is_error=True)
        text = TextContent(text=result.text)
        return CallToolResult(content=[text], structured_content=_structured(result))

    return Server(tool.name, version=__version__, on_list_tools=list_tools, on_call_tool=call_tool)


# --- the tool ---------------------------------------------------------------------------------


def tool_of(plan: Plan) -> dict[str, Any]:
    """Name, description and schemas of a team's tool."""
    graph = plan.graph
    agents = ", ".join(agent.name for agent in graph.agents)
    inputs = {name: {"type": "string", "description": f"Input {name!r}."} for name in graph.inputs}
    return {
        "name": re.sub(r"[^A-Za-z0-9_-]+", "-", graph.name).strip("-")[:64] or "team",
        "title": graph.name,
        "description": f"Ask a team of language models ({agents}), which think together for "
        f"{graph.rounds} round{'s' * (graph.rounds != 1)}. Calls are independent: the team "
        "remembers nothing between them.",
        "input_schema": {
            "type": "object",
            "properties": inputs | _size_schemas(plan),
            "required": list(inputs),
            "additionalProperties": False,
        },
        "output_schema": {
            "type": "object",
            "properties": {
                "answer": {"type": "string"},
                "finish_reason": {"type": "string"},
                "seconds": {"type": "number"},
            }
            | {name: {"type": "integer"} for name in COSTS},
            "required": ["answer", "finish_reason", "seconds", *COSTS],
        },
    }


def _size_schemas(plan: Plan) -> dict[str, dict[str, Any]]:
    """Schemas of the sizes; an input of the same name takes precedence."""
    told = {
        "rounds": f"Number of rounds. Default: {plan.graph.rounds}.",
        "latent_steps": "Number of latent steps of every agent. Default: as the team declares.",
        "max_new_tokens": "Maximum number of new tokens of every agent that writes.",
    }
    return {
        name: {"type": "integer", "minimum": 1, "maximum": limit, "description": told[name]}
        for name, limit in limits_of(plan).items()
        if name not in plan.graph.inputs
    }


def read_call(
    plan: Plan, arguments: Mapping[str, Any], defaults: RunOptions
) -> tuple[dict[str, str], RunOptions]:
    """Sample and options of a call.

    Args:
        plan: Plan of the team.
        arguments: Arguments of the call.
        defaults: Options for what the arguments leave open.

    Raises:
        DataError: An argument is unknown, missing, of the wrong type or beyond a limit; the
            message names every problem.
        LatentMASError: A size is out of range.
    """
    inputs, sizes = plan.graph.inputs, _size_schemas(plan)
    problems = [_unknown(name, [*inputs, *sizes]) for name in arguments
                if name not in inputs and name not in sizes]  # fmt: skip
    problems += [f"the argument {name!r} is missing" for name in inputs if name not in arguments]
    problems += [
        f"{name} is {arguments[name]!r:.60}; give a text"
        for name in inputs
        if name in arguments and not isinstance(arguments[name], str)
    ]
    asked = {name: arguments[name] for name in sizes if arguments.get(name) is not None}
    problems += [
        f"{name} is {value!r:.60}; give a whole number of at least 1"
        for name, value in asked.items()
        if isinstance(value, bool) or not isinstance(value, int) or value < 1
    ]
    if not problems:
        problems = beyond(asked, limits_of(plan))
    if problems:
        raise DataError("; ".join(problems))
    return {name: arguments[name] for name in inputs}, defaults.replace(**asked)


def _unknown(name: str, known: list[str]) -> str:
    guess = closest(name, known)
    hint = f"did you mean {guess!r}?" if guess else f"arguments: {', '.join(known)}"
    return f"unknown argument {name!r}; {hint}"


def _structured(result: RunResult) -> dict[str, Any]:
    return {
        "answer": result.text,
        "finish_reason": result.finish_reasons[0][0],
        "seconds": round(result.seconds, 6),
        **costs_of(result),
    }


# --- runs -------------------------------------------------------------------------------------


async def _run(
    system: System, sample: Mapping[str, str], options: RunOptions, report_progress: Any
) -> RunResult:
    """Run the team in a thread. A cancelled call ends it at its next step or token."""
    import anyio

    stop, steps = threading.Event(), len(_plan(system, options).steps)

    def watch(event: Event) -> None:
        if stop.is_set() and not isinstance(event, RunEnd):
            raise _StoppedError
        if isinstance(event, StepEnd) and not stop.is_set():
            done = f"round {event.round}: {event.agent}"
            anyio.from_thread.run(report_progress, event.step + 1, steps, done)

    def work() -> RunResult | BaseException:
        try:
            return system.run([sample], options=options, on_event=watch)
        except BaseException as error:
            return error

    async def wait_for_cancellation() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            stop.set()

    async with anyio.create_task_group() as group:
        group.start_soon(wait_for_cancellation)
        # The await lasts until the thread has ended, so that no two runs share the team.
        outcome = await anyio.to_thread.run_sync(work)
        group.cancel_scope.cancel()
    if isinstance(outcome, BaseException):
        raise outcome
    return outcome


def _plan(system: System, options: RunOptions) -> Plan:
    return system.plan.replace(rounds=options.rounds, latent_steps=options.latent_steps)
