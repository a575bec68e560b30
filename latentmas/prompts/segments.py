"""Prompt texts that track which characters the template's author wrote.

Only literal template text is the author's own. The output of an expression (a sample field, a text
edge, the result of a filter) comes from outside. The environment tracks the two during rendering,
so that special tokens are later recognised in the author's text only. Text of unknown origin
counts as outside text.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from jinja2 import StrictUndefined, pass_context
from jinja2.compiler import CodeGenerator

from latentmas.prompts.budget import budget
from latentmas.prompts.environment import MeteredEnvironment

__all__ = ["PromptEnvironment", "Segment", "Text", "segments_of"]


class Segment(NamedTuple):
    """A contiguous part of a prompt's text."""

    text: str
    own: bool
    """Whether the template's author wrote it; False for text from outside."""


class Text(str):
    """The output of a template, a macro or a block: its text and the segments it consists of.

    String methods and filters see the whole text and return plain strings, which count as outside
    text when they are placed.
    """

    _segments: tuple[Segment, ...]

    @classmethod
    def of(cls, segments: Iterable[Segment]) -> Text:
        """Join segments; adjacent segments of the author's own are merged."""
        joined: list[Segment] = []
        for segment in segments:
            if segment.own and joined and joined[-1].own:
                joined[-1] = Segment(joined[-1].text + segment.text, own=True)
            elif segment.text:
                joined.append(segment)
        text = cls("".join(segment.text for segment in joined))
        text._segments = tuple(joined)
        return text

    def __str__(self) -> str:
        """The text itself; compiled templates call `str` on values they insert."""
        return self


def segments_of(text: str) -> tuple[Segment, ...]:
    """The segments of a rendered text; a plain string is one segment from outside."""
    if isinstance(text, Text):
        return text._segments
    return (Segment(str.__str__(text), own=False),) if text else ()


class _Absent(StrictUndefined):
    """An unbound variable: falsy in tests, an error anywhere else."""

    def __bool__(self) -> bool:  # type: ignore[override]
        return False


class _Generator(CodeGenerator):
    """Marks literal template text as the author's own; all other output stays unmarked."""

    def _output_const_repr(self, group: Iterable[Any]) -> str:
        return f"environment.own({''.join(map(str, group))!r})"


class PromptEnvironment(MeteredEnvironment):
    """Compiles prompts; `render` returns a `Text`."""

    code_generator_class = _Generator

    def __init__(self) -> None:
        super().__init__(undefined=_Absent, keep_trailing_newline=True, finalize=_placed)

    @staticmethod
    def own(text: str) -> Text:
        """Literal text of a template; called by compiled templates."""
        return Text.of([Segment(text, own=True)])

    @staticmethod
    def concat(parts: Iterable[str]) -> Text:
        """Join the output of a template, a macro or a block."""
        found = MeteredEnvironment.pay_for(parts)
        return Text.of(segment for part in found for segment in segments_of(part))


@pass_context
def _placed(_: Any, value: Any) -> Text:
    """Charge for the output of an expression; requiring the context prevents constant folding."""
    budget().look(value)
    return value if isinstance(value, Text) else Text.of(segments_of(str(value)))
