"""Help texts, messages, docstrings and pages are in plain, idiomatic English.

`PATTERNS` lists turns of phrase that a native reader stumbles over, and what to write instead. They
hold for `ROOMS` and `PAGES`; to widen the scope, add a room or page and revise what fails.
"""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

import latentmas as lm
from latentmas.cli.app import app
from latentmas.training.loops import in_order

ROOT = Path(__file__).parent.parent
ROOMS = (
    *("cli", "errors.py", "spec/agent.py", "spec/backbone.py", "spec/rows.py"),
    *("plan/run_options.py", "plan/_option_errors.py"),
    *("runtime", "engine", "generation", "training", "cost", "viz"),
    *("io", "interop", "evaluation", "environment.py", "templates", "testing", "demo", "serve"),
    "studies",
)
"""Folders and files of the package whose strings and docstrings are checked."""
ALLOWED = (
    "Where the solver got to with your last plan: {{ feedback }} "
    "Keep what worked, mend what did not, and lay out a better plan.",
)
"""Sentences of prompts: models were measured with them, and plans' digests depend on them."""
PAGES = sorted(
    str(path.relative_to(ROOT / "docs"))
    for path in (ROOT / "docs").rglob("*.md")
    if path.name != "changelog.md"
)
"""Pages of docs/ that are checked."""


class Pattern(NamedTuple):
    """A turn of phrase to avoid."""

    expression: str
    instead: str
    bad: str
    """A text in which it is found."""
    good: str
    """The same, said well: nothing is found."""


PATTERNS = (
    Pattern(
        r"(?<![Tt]here )\b(is|are|was|were) no "
        r"(?!longer|more|less|such|later|larger|earlier|other|better|cheaper)",
        "'is not a …': 'is no folder' is literary",
        "it is no saved team",
        "it is not a saved team; the file does not exist",
    ),
    Pattern(
        r"\b[Tt]here (is|are) no such\b|\b(if|where|when) there is no such\b",
        "'does not exist' or 'is unknown'",
        "there is no such style",
        "the style is unknown",
    ),
    Pattern(
        r"\b(is|are|was|were) others?\b(?! than)",
        "'differs', 'differ' or 'has changed'",
        "the data are others",
        "the data differ",
    ),
    Pattern(r"\b[Mm]end(s|ed|ing)?\b", "'fix': 'mend' is for clothes", "mend it", "fix it"),
    Pattern(r"\AOf ", "the thing first, not its owner", "Of drawing.", "Sampling temperature."),
    Pattern(
        r"\A(Most|Least) (?!likely|common|recent)",
        "'Maximum number of …', 'Minimum …'",
        "Most tokens of an answer.",
        "Maximum number of tokens. Most likely tokens.",
    ),
    Pattern(
        r"\btaken for granted\b", "'assumed'", "a GPU is taken for granted", "a GPU is assumed"
    ),
    Pattern(
        r"\bwhose (\w+ ){1,2}(is|are) meant\b",
        "name it: 'Device whose memory to estimate.'",
        "Device whose memory is meant.",
        "Device whose memory to estimate.",
    ),
    Pattern(
        r"\b(if|where) need be\b", "'if missing' or 'if necessary'", "made if need be", "if missing"
    ),
    Pattern(r"\banew\b", "'again' or 'replaced'", "made anew", "made again"),
    Pattern(
        r"(?<!\w)(?<!it )goes with (--|`|'|\w+=)",
        "'requires …': a flag does not go with another",
        "--twin goes with --report",
        "--twin requires --report",
    ),
    Pattern(
        r"\b(told|tells?) of\b",
        "'reports', 'is listed' or 'says'",
        "rows it tells of",
        "rows listed",
    ),
    Pattern(r"\bas then\b", "'as recorded'", "without it, as then", "Default: as recorded."),
    Pattern(
        r"\bone (JSON object|row|answer|mapping|step) a (line|row|step)\b",
        "'per line'",
        "one JSON object a line",
        "one JSON object per line",
    ),
    Pattern(
        r"\b[Ff]or who\b|\bwho writes on\b", "'for whoever'", "for who writes", "for whoever writes"
    ),
    Pattern(r"\bsecond chance\b", "'one retry'", "a second chance for answers", "one retry"),
    Pattern(
        r"\b[a-z]\w*: of (?!which)",
        "'token: Hub access token.': name the thing, not only its owner",
        "Args: token: of the hub.",
        "Args: token: Hub access token.",
    ),
    Pattern(
        r"\bwhole or not at all\b",
        "'atomically'",
        "Write it whole or not at all.",
        "Write it atomically.",
    ),
    Pattern(
        r"\b(?:does|do|did) not (?:give|tell)\b",
        "'cannot be downloaded', 'lacks' or 'does not say'",
        "the hub does not give it",
        "it cannot be downloaded from the Hub",
    ),
    Pattern(
        r"\b(is|are) (heard|told|said|not said|not told)(?=[.;,:]|\Z)",
        "'applies', 'is reported' or 'is shown'",
        "the first of them is heard",
        "the first of them applies",
    ),
    Pattern(
        r"\bwords? \w+ otherwise\b|\bnot be had\b|\bcan be had\b",
        "'differs', 'is unavailable' or 'is available'",
        "the prompts can be had there",
        "the prompts are available there",
    ),
)


def found(text: str) -> list[str]:
    """What to write instead of each turn of phrase in a text."""
    told = []
    for pattern in PATTERNS:
        match = re.search(pattern.expression, text)
        if match:
            told.append(f"{match[0]!r} in {text[max(0, match.start() - 30) :][:90]!r}: "
                        f"write {pattern.instead}")  # fmt: skip
    return told


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda p: p.bad.replace(" ", "-"))
def test_a_pattern_finds_what_it_is_for(pattern: Pattern) -> None:
    assert re.search(pattern.expression, pattern.bad)
    assert not re.search(pattern.expression, pattern.good)


def strings(path: Path) -> Iterator[tuple[int, str]]:
    """All strings of a module with their lines: docstrings, messages, help texts."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, " ".join(node.value.split())


def files(room: str) -> list[Path]:
    path = ROOT / "latentmas" / room
    return sorted(path.rglob("*.py")) if path.is_dir() else [path]


@pytest.mark.parametrize("room", ROOMS)
def test_strings_of_a_room(room: str) -> None:
    told = [
        f"{path.relative_to(ROOT)}:{line}: {problem}"
        for path in files(room)
        for line, text in strings(path)
        if text not in ALLOWED
        for problem in found(text)
    ]
    assert not told, "\n".join(told)


@pytest.mark.parametrize("page", PAGES)
def test_words_of_a_page(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n|\n[-|]", prose))
    told = [problem for part in paragraphs for problem in found(part)]
    assert not told, "\n".join(told)


# --- help texts ---------------------------------------------------------------------------------


def commands(group: Any, name: str = "latentmas") -> Iterator[tuple[str, Any]]:
    """All commands with their names, groups included."""
    yield name, group
    for child in group.list_commands(None) if hasattr(group, "list_commands") else ():
        yield from commands(group.get_command(None, child), f"{name} {child}")


def helps() -> Iterator[tuple[str, str]]:
    """Every help text: of commands and their options, of options of runs and of trainings."""
    for name, command in commands(typer.main.get_command(app)):
        yield name, command.help or ""
        yield from ((f"{name} {p.name}", p.help or "") for p in command.params)
    yield from (
        (f"RunOptions.{n}", str(f.description)) for n, f in lm.RunOptions.model_fields.items()
    )
    for loop in in_order().values():
        kind = loop.parts()[1]
        own = {n for c in kind.__mro__ if c.__module__.startswith("latentmas") for n in vars(c)}
        for field in dataclasses.fields(kind):
            if field.name in own:
                yield f"{kind.__name__}.{field.name}", str(field.metadata.get("help", ""))


def test_help_texts_are_sentences_that_name_the_thing_first() -> None:
    told, seen = list[str](), set[str]()
    for name, text in helps():
        text = " ".join(text.split())
        if name.endswith((" help", "completion")) or name == "latentmas" or text in seen:
            continue  # of typer, or an introduction, or seen already
        seen.add(text)
        if not re.match(r"[A-Z]", text) or not text.endswith("."):
            told.append(f"{name}: {text!r} is not a sentence")
        if re.match(r"(Of|If|Above|Below|Without|Such|Where|When|For|As|None) ", text):
            told.append(f"{name}: {text!r} does not name the thing first")
        told += [f"{name}: {problem}" for problem in found(text)]
    assert len(seen) > 150
    assert not told, "\n".join(told)
