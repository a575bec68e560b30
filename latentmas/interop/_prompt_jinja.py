"""Convert rendered prompts to Jinja source: escaping, marks for fields and slots, branches."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

__all__ = ["OPTIONS", "branch", "literal", "pieces", "quoted"]

_SPECIAL = re.compile(r"\{(?=[{%#\r]|\Z)|\r")

OPTIONS = (
    "{% set seen = namespace(options=false) %}{% for line in question.split('\\n') %}"
    "{% set rest = question.split('\\n', loop.index0)[-1].lstrip() %}"
    "{% set mark = rest[1:].lstrip() %}"
    "{% if rest[:1] and rest[0] in 'ABCDabcd' and mark[:1] and mark[0] in '.):-'"
    " and mark[1:2].isspace() %}{% set seen.options = true %}{% endif %}{% endfor %}"
)
"""Sets `seen.options`: a line of the question starts like `A) …` or `b. …`."""


def literal(text: str) -> str:
    """Jinja source that renders as `text`, whatever follows it."""
    return _SPECIAL.sub(lambda found: f"{{{{ {quoted(found[0])} }}}}", text)


def quoted(text: str) -> str:
    """`text` as a Jinja string literal."""
    escaped = text.encode("unicode_escape").decode("ascii").replace("'", "\\'")
    return f"'{escaped}'"


def pieces(prompt: str, marks: Iterable[tuple[str, str]]) -> list[str]:
    """Convert a prompt to pieces of Jinja source: lines of literal text, and variables.

    Args:
        prompt: rendered prompt.
        marks: pairs of a text in the prompt and the expression that replaces it, in order of
            precedence.
    """
    parts = [(prompt, False)]
    for mark, expression in marks:
        place = (f"{{{{ {expression} }}}}", True)
        parts = [
            part
            for text, done in parts
            for part in ([(text, True)] if done else _between(text.split(mark), place))
        ]
    return [
        piece
        for text, done in parts
        for piece in ([text] if done else map(literal, re.findall(r"[^\n]*\n|[^\n]+", text)))
    ]


def branch(test: str, yes: Sequence[str], no: Sequence[str], before: str = "") -> list[str]:
    """Build pieces that render `yes` if `test` holds and `no` otherwise.

    A common beginning and end appear once, outside the branch.

    Args:
        test: Jinja expression.
        yes: pieces to render if the test holds.
        no: pieces to render otherwise.
        before: Jinja source that must precede the test.
    """
    if list(yes) == list(no):
        return list(yes)
    head = _shared(yes, no)
    tail = _shared(yes[head:][::-1], no[head:][::-1])
    yes_only = "".join(yes[head : len(yes) - tail])
    no_only = "".join(no[head : len(no) - tail])
    if not yes_only:
        test, yes_only, no_only = f"not ({test})" if " " in test else f"not {test}", no_only, ""
    otherwise = f"{{% else %}}{no_only}" if no_only else ""
    middle = f"{before}{{% if {test} %}}{yes_only}{otherwise}{{% endif %}}"
    return [*yes[:head], middle, *yes[len(yes) - tail :]]


def _between(texts: Sequence[str], place: tuple[str, bool]) -> list[tuple[str, bool]]:
    found: list[tuple[str, bool]] = [(texts[0], False)]
    for text in texts[1:]:
        found += [place, (text, False)]
    return found


def _shared(one: Sequence[str], other: Sequence[str]) -> int:
    """Number of leading pieces that both share."""
    count = 0
    while count < min(len(one), len(other)) and one[count] == other[count]:
        count += 1
    return count
