"""Prompt templates: sandboxed Jinja2 whose variables are sample fields or slots.

A slot that carries latents renders as a marker with a random nonce; the runtime splits the text
at the marker and inserts the message. The nonce is new for each rendering, so text from users
cannot contain a valid marker. A rendered text records which parts come from the template and
which from outside (`segments_of`).
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from jinja2 import Template, meta, nodes
from jinja2.exceptions import SecurityError

from latentmas.prompts.budget import rendering
from latentmas.prompts.segments import PromptEnvironment, Segment, Text, segments_of
from latentmas.spec import AgentSpec

__all__ = [
    "RESERVED",
    "Rendered",
    "Segment",
    "SlotMisuseError",
    "Text",
    "ChatMessage",
    "check_template",
    "misused_variables",
    "placed_variables",
    "prompt_variables",
    "render_prompt",
    "segments_of",
    "template_variables",
]


HARMLESS = frozenset({"trim", "string", "safe", "default", "d"})
"""Filters that do not change a placed slot."""


class SlotMisuseError(ValueError):
    """A template does something with a latent slot other than placing it."""


class ChatMessage(NamedTuple):
    """One chat message; a rendered prompt's content is a `Text`."""

    role: str
    content: str


class Rendered(NamedTuple):
    """A rendered prompt: chat turns with markers, and the slot of each marker."""

    turns: tuple[ChatMessage, ...]
    markers: Mapping[str, str]
    """Marker text → slot name."""


_ENVIRONMENT = PromptEnvironment()

RESERVED: frozenset[str] = frozenset(_ENVIRONMENT.globals) | {
    *("true", "false", "none", "True", "False", "None", "not", "and", "or", "in", "is", "if"),
    *("else", "loop", "self", "super", "varargs", "kwargs", "caller", "outer", "inner", "shared"),
}
"""Names that no agent, slot, input or text source may have."""


class _Marker:
    """A latent slot inside a template: truthy and placeable; any other use is an error."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __str__(self) -> str:
        return self._text


@lru_cache(maxsize=512)
def _parsed(text: str) -> nodes.Template:
    return _ENVIRONMENT.parse(text)


@lru_cache(maxsize=512)
def _compiled(text: str) -> Template:
    return _ENVIRONMENT.from_string(
        text
    )  # compiling modifies the tree, so each call needs a new one


@lru_cache(maxsize=512)
def template_variables(text: str) -> frozenset[str]:
    """Names that a template looks up.

    Raises:
        jinja2.TemplateSyntaxError: The template cannot be parsed.
    """
    names = meta.find_undeclared_variables(_parsed(text))
    return frozenset(names - set(_ENVIRONMENT.globals))


def prompt_variables(agent: AgentSpec) -> frozenset[str]:
    """Names that the agent's prompt and system templates look up.

    Raises:
        jinja2.TemplateSyntaxError: A template cannot be parsed.
    """
    return template_variables(agent.prompt) | template_variables(agent.system or "")


def placed_variables(agent: AgentSpec) -> frozenset[str]:
    """Variables used outside of conditions such as `{% if feedback %}`."""
    return _placed_in(agent.prompt) | _placed_in(agent.system or "")


@lru_cache(maxsize=512)
def _placed_in(text: str) -> frozenset[str]:
    tree = _parsed(text)
    branches: list[Any] = list(tree.find_all((nodes.If, nodes.CondExpr)))
    tests = [branch.test for branch in branches]
    tested = Counter(name for test in tests for name in _names_in(test))
    every = Counter(name.name for name in tree.find_all(nodes.Name))
    return frozenset(every - tested)


def _names_in(node: nodes.Node) -> list[str]:
    own = [node.name] if isinstance(node, nodes.Name) else []
    return own + [name.name for name in node.find_all(nodes.Name)]


def misused_variables(agent: AgentSpec) -> frozenset[str]:
    """Variables used inside a filter, operator or call, rather than bare or in a condition."""
    return _misused_in(agent.prompt) | _misused_in(agent.system or "")


@lru_cache(maxsize=512)
def _misused_in(text: str) -> frozenset[str]:
    return frozenset(_misused(_parsed(text), bare=True))


def _misused(node: nodes.Node, *, bare: bool) -> Iterator[str]:
    """Names below `node` that are not used bare."""
    if isinstance(node, nodes.Name):
        if not bare and node.ctx == "load":
            yield node.name
        return
    if isinstance(node, nodes.Test):
        bare = node.name in ("defined", "undefined")
    elif isinstance(node, nodes.Filter):
        bare = node.name in HARMLESS
    elif isinstance(node, nodes.Expr):
        bare = isinstance(node, nodes.CondExpr | nodes.And | nodes.Or | nodes.Not | nodes.Concat)
    elif isinstance(node, nodes.Stmt):
        bare = isinstance(node, nodes.Output | nodes.If | nodes.For | nodes.Scope | nodes.Block)
    for child in node.iter_child_nodes():
        within = bare and not (isinstance(node, nodes.For) and child is node.iter)
        yield from _misused(child, bare=within)


def check_template(agent: AgentSpec) -> None:
    """Parse and compile the agent's templates.

    Raises:
        jinja2.TemplateError: A template cannot be compiled, is too large, or loads other files.
    """
    for text in (agent.prompt, agent.system or ""):
        _compiled(text)


def render_prompt(
    agent: AgentSpec, values: Mapping[str, Any], latent_slots: Iterable[str] = ()
) -> Rendered:
    """Render an agent's prompt into chat turns.

    Args:
        agent: Agent whose prompt to render.
        values: Sample fields, and slots that hold text. Missing names are falsy in conditions
            and an error when placed.
        latent_slots: Slots that hold latents in this round.

    Raises:
        jinja2.TemplateError: A missing variable is placed, the template violates the sandbox,
            or it exceeds the budget of a prompt.
        SlotMisuseError: A latent slot was passed through a filter or an operator.
    """
    latent_slots = list(latent_slots)
    for slot in latent_slots:
        if slot in misused_variables(agent):
            raise SlotMisuseError(f"slot {slot!r} holds latents: it can only be placed or tested")
    nonce = str(secrets.randbits(96))
    slots = {slot: f"<<latent:{nonce}:{i}>>" for i, slot in enumerate(latent_slots)}
    scope = {**values, **{slot: _Marker(text) for slot, text in slots.items()}}
    turns = []
    if agent.system is not None:
        turns.append(ChatMessage("system", _rendered(agent.system, scope)))
    turns.append(ChatMessage("user", _rendered(agent.prompt, scope)))
    markers = {text: slot for slot, text in slots.items()}
    if slots and any(nonce in _without(turn.content, markers) for turn in turns):
        raise SlotMisuseError("a filter changed a slot that holds latents")
    return Rendered(tuple(turns), markers)


def _without(text: str, markers: Iterable[str]) -> str:
    for marker in markers:
        text = text.replace(marker, "")
    return text


def _rendered(text: str, scope: Mapping[str, Any]) -> str:
    template = _compiled(text)
    with rendering(scope.values()):
        try:
            return template.render(scope)
        except RecursionError as error:
            raise SecurityError("the template recurses without end") from error
