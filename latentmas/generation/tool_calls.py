"""Tool calls while an agent writes: found row by row, answered in place.

Two styles. `tags`: the text holds `<python>…</python>`, and the answer follows in
`<result>…</result>`. `chat`: the model makes a turn of calls as its chat template has taught it,
and the template renders the answers. Calls that are due at the same step run side by side.
"""

from __future__ import annotations

import inspect
import json
import re
import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from pydantic import TypeAdapter, ValidationError, validate_call

from latentmas.backbones import (
    LoadedBackbone,
    chat_text,
    outside_ids,
    render_turns,
    segment_ids,
)
from latentmas.engine import Nonces
from latentmas.errors import LatentMASError
from latentmas.generation.controllers import Continuation, GenerationController, Rows
from latentmas.prompts import ChatMessage, Segment
from latentmas.spec import AgentSpec
from latentmas.tools import Tool

__all__ = ["ToolCallController", "ToolCall", "tool_call_controller", "tool_schemas"]

AT_ONCE = 8
"""Most tools that run side by side."""
NO_CALLS_LEFT = "No calls are left. Answer with what is known."


@dataclass(frozen=True)
class ToolCall:
    """A call that an agent made while it wrote."""

    tool: str
    arguments: dict[str, Any]
    result: str
    """As the agent read it."""
    seconds: float
    failed: bool = False
    """Whether the result is an error's message."""
    sequence: int = 0
    """Which of the sample's answers it belongs to; 0 for agents that do not write the answer."""
    agent: str = ""
    """The agent that made the call."""
    round: int = 0
    """The round in which it was made."""


@dataclass
class _Wanted:
    """A call that a row has just made."""

    tool: str
    body: str | dict[str, Any]


class ToolCallController(GenerationController):
    """What the styles have in common: running calls, counting them, keeping a record."""

    def __init__(
        self, agent: AgentSpec, tools: Mapping[str, Tool], backbone: LoadedBackbone
    ) -> None:
        self.agent, self.tools, self.backbone = agent, tools, backbone
        self.calls: dict[int, list[ToolCall]] = {}
        """What each row has called."""
        self.limited: set[int] = set()
        """Rows that have been told that no calls are left."""
        self._begin: dict[int, int] = {}
        """For each row, the token from which on calls are looked for."""
        self._forged = re.compile(
            rf"<(?=\s*/?\s*(?:result|tool_call|tool_response|{'|'.join(agent.tools)})\b)", re.I
        )

    def own_text(self, row: int, ids: Sequence[int]) -> str:
        """What the row has written since its last call."""
        new = list(ids[self._begin.get(row, 0) :])
        return str(self.backbone.tokenizer.decode(new, skip_special_tokens=False))

    def answer(self, wanted: Mapping[int, list[_Wanted]], rows: Rows) -> dict[int, Continuation]:
        """Run the calls of some rows; each row goes on with its results."""
        allowed = {row: self._allowed(row, calls) for row, calls in wanted.items()}
        flat = [(row, call) for row, calls in allowed.items() for call in calls]
        with ThreadPoolExecutor(max_workers=max(1, min(AT_ONCE, len(flat)))) as pool:
            done = list(pool.map(lambda item: self._run(item[1]), flat))
        for (row, _), call in zip(flat, done, strict=True):
            self.calls.setdefault(row, []).append(call)
        said = {}
        for row, calls in wanted.items():
            results = [
                call.result for (other, _), call in zip(flat, done, strict=True) if other == row
            ]
            results += [NO_CALLS_LEFT] * (len(calls) - len(results))
            tokens = self.tokens([self._plain(result) for result in results])
            self._begin[row] = len(rows[row]) + len(tokens)
            said[row] = Continuation(tokens)
        return said

    @abstractmethod
    def tokens(self, results: Sequence[str]) -> list[int]:
        """The tokens with which a row goes on after its calls."""

    def _allowed(self, row: int, calls: list[_Wanted]) -> list[_Wanted]:
        left = max(0, self.agent.max_tool_calls - len(self.calls.get(row, ())))
        if len(calls) > left:
            self.limited.add(row)
        return calls[:left]

    def _plain(self, result: str) -> str:
        """A result that cannot be taken for a call, or for the end of a result."""
        return self._forged.sub("&lt;", result)

    def _run(self, wanted: _Wanted) -> ToolCall:
        began = time.perf_counter()
        arguments: dict[str, Any] = {}
        try:
            arguments = self._arguments(wanted)
            result, failed = str(validate_call(self.tools[wanted.tool])(**arguments)), False
        except LatentMASError:
            raise  # a tool that cannot work here: for the user, not for the model
        except ValidationError as error:
            reasons = "; ".join(item["msg"] for item in error.errors(include_url=False))
            result, failed = f"[wrong arguments for {wanted.tool}: {reasons}]", True
        except Exception as error:  # whatever the user's function raises is told to the model
            result, failed = f"[{wanted.tool} failed: {type(error).__name__}: {error}]", True
        return ToolCall(wanted.tool, arguments, result, time.perf_counter() - began, failed)

    def _arguments(self, wanted: _Wanted) -> dict[str, Any]:
        """A mapping as it is; text as the only argument, or as JSON for several."""
        if isinstance(wanted.body, dict):
            return wanted.body
        names = list(inspect.signature(self.tools[wanted.tool]).parameters)
        if len(names) == 1:
            return {names[0]: wanted.body.strip("\n")}
        try:
            found = json.loads(wanted.body) if wanted.body.strip() else {}
        except (ValueError, RecursionError) as error:
            raise ValueError(f"expected a JSON object with {', '.join(names)}: {error}") from error
        if not isinstance(found, dict):
            raise ValueError(f"expected a JSON object with {', '.join(names)}")
        return found


class _Tags(ToolCallController):
    """`<python>…</python>` in the text."""

    def __init__(
        self, agent: AgentSpec, tools: Mapping[str, Tool], backbone: LoadedBackbone
    ) -> None:
        super().__init__(agent, tools, backbone)
        self._call = re.compile(rf"<({'|'.join(agent.tools)})>(.*?)</\1>", re.DOTALL)
        self._tail = max(len(name) for name in agent.tools) + 8

    def after_tokens(self, rows: Rows) -> dict[int, Continuation]:
        """Answer the rows that have just closed a call."""
        wanted = {}
        for row, ids in rows.items():
            tail = self.backbone.tokenizer.decode(list(ids[-self._tail :]))
            if ">" not in tail or row in self.limited:
                continue
            found = self._call.search(self.own_text(row, ids))
            if found:
                wanted[row] = [_Wanted(found[1], found[2])]
        return self.answer(wanted, rows) if wanted else {}

    def tokens(self, results: Sequence[str]) -> list[int]:
        """The results in their tags; nothing in them is a special token."""
        text = "".join(f" <result> {result} </result>" for result in results)
        return outside_ids(self.backbone.tokenizer, text)


class _Chat(ToolCallController):
    """Turns of calls, as the chat template has them."""

    _calls = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)

    def at_end(self, rows: Rows) -> dict[int, Continuation]:
        """Answer the rows whose turn was one of calls."""
        wanted = {
            row: calls
            for row, ids in rows.items()
            if row not in self.limited and (calls := self._wanted(self.own_text(row, ids)))
        }
        return self.answer(wanted, rows) if wanted else {}

    def _wanted(self, text: str) -> list[_Wanted]:
        bodies = self._calls.findall(text) or [text.strip()]  # some models write bare JSON
        calls = []
        for body in bodies:
            try:
                call = json.loads(body)
            except (ValueError, RecursionError):
                continue
            name = call.get("name") if isinstance(call, dict) else None
            if isinstance(name, str) and name in self.tools:
                arguments = call.get("arguments", call.get("parameters", {}))
                calls.append(_Wanted(name, arguments if isinstance(arguments, dict) else {}))
        return calls

    def tokens(self, results: Sequence[str]) -> list[int]:
        """The end of the assistant's turn, the tools' turn and the beginning of the next."""
        nonces = Nonces()
        said = nonces.hide(Segment("", own=False))
        marks = [nonces.hide(Segment(result, own=False)) for result in results]
        turns = [ChatMessage("user", "?"), ChatMessage("assistant", said)]
        turns += [ChatMessage("tool", mark) for mark in marks]
        text = self._rendered(turns)
        if set(nonces.counts(text).values()) != {1}:
            raise LatentMASError(
                f"agent {self.agent.name!r} has tool_style='chat', but the chat template of "
                f"{self.backbone.planned.spec.source!r} has no turns of tools; "
                "use tool_style='tags'"
            )
        after = nonces.split(text.partition(said)[2])
        return segment_ids(self.backbone.tokenizer, [s for s in after if isinstance(s, Segment)])

    def _rendered(self, turns: Sequence[ChatMessage]) -> str:
        """The turns as the chat template writes them; empty where it refuses turns of tools."""
        tokenizer, options = self.backbone.tokenizer, self.agent.chat_options
        if not tokenizer.chat_template:
            return chat_text(tokenizer, turns, options)
        try:
            return render_turns(tokenizer, turns, options, add_generation_prompt=True)
        except SecurityError:
            raise
        except TemplateError:
            return ""


def tool_call_controller(
    agent: AgentSpec, tools: Mapping[str, Tool], backbone: LoadedBackbone
) -> ToolCallController:
    """The controller of an agent's tool calls.

    Args:
        agent: who calls; it names at least one tool.
        tools: by name.
        backbone: of the agent.
    """
    own = {name: tools[name] for name in agent.tools}
    return (_Chat if agent.tool_style == "chat" else _Tags)(agent, own, backbone)


def tool_schemas(agent: AgentSpec, tools: Mapping[str, Tool]) -> list[dict[str, Any]]:
    """The tools as chat templates want them: JSON schemas; none in other styles of calling."""
    if agent.tool_style != "chat":
        return []
    return [
        {
            "type": "function",
            "function": {
                "name": name,
                "description": inspect.getdoc(tools[name]) or name,
                "parameters": TypeAdapter(tools[name]).json_schema(),  # type: ignore[arg-type]
            },
        }
        for name in agent.tools
    ]
