"""Chat templates of tokenizers, rendered within the budget of prompts.

A chat template comes with a model and is not trusted. transformers renders it in a sandbox without
limits on time and memory. This environment has the same filters, functions, tags and white-space
rules as that of transformers, and charges for every operation of the template.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.utils import Namespace

from latentmas.prompts.budget import rendering
from latentmas.prompts.environment import MeteredEnvironment, paid

__all__ = ["check_chat_template_text", "render_chat_template"]


def render_chat_template(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
    add_generation_prompt: bool = False,
) -> str:
    """Same text as `apply_chat_template(…, tokenize=False)`, within a prompt's budget.

    Args:
        template: Jinja2 source.
        messages: Mappings with `role` and `content`.
        tools: JSON schemas of the tools.
        variables: Special tokens and further variables of the template.
        add_generation_prompt: End with the header of the assistant's turn.

    Raises:
        jinja2.TemplateError: The template cannot be compiled, rejects the messages, or exceeds
            the budget of a prompt (`SecurityError`).
    """
    scope = {
        "documents": None,
        **(variables or {}),
        "messages": [dict(message) for message in messages],
        "tools": None if tools is None else list(tools),
        "add_generation_prompt": add_generation_prompt,
    }
    with rendering(scope.values()):
        try:
            return _compiled(template).render(scope)
        except RecursionError as error:
            raise SecurityError("the chat template recurses without end") from error
        except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
            raise TemplateError(f"{type(error).__name__}: {error}") from error


def check_chat_template_text(template: str) -> None:
    """Compile a chat template without rendering it.

    Raises:
        jinja2.TemplateError: It cannot be compiled.
    """
    try:
        _compiled(template)
    except RecursionError as error:
        raise TemplateError("it is nested too deeply") from error


class _Generation(Extension):
    """`{% generation %}…{% endgeneration %}` marks the assistant's text for training masks."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Scope:
        """Parse the tag; its body gets its own scope."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


class _Dict:
    """`dict` without access to the type."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        return dict.fromkeys(*args)


class _Namespace(Namespace):
    """`namespace` that rejects names beginning with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:  # `namespace(self=…)` is allowed
        self, *rest = args
        attributes = dict(*rest, **kwargs)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


def _check_name(name: object) -> None:
    if str(name).startswith("_"):
        raise SecurityError(f"a namespace cannot hold {name!r}: names must not begin with '_'")


class _ChatEnvironment(MeteredEnvironment):
    """Compiles chat templates the way transformers does."""

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
        )
        self.filters["tojson"] = paid("tojson", _tojson)
        self.globals |= {
            "dict": _Dict(),
            "namespace": _Namespace,
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON without HTML escapes."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


_ENVIRONMENT = _ChatEnvironment()


@lru_cache(maxsize=64)
def _compiled(template: str) -> Template:
    return _ENVIRONMENT.from_string(template)
