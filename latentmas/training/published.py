"""The training sets that the authors of RecursiveMAS published, read for the templates' agents.

Each set has columns of its own. Here its rows get a field for each agent, named like the agent, so
that the loops find the texts without further settings.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from latentmas.errors import DataError, UnknownNameError
from latentmas.redact import get_logger
from latentmas.tables import Row, Table, download_table, read_table

__all__ = ["PublishedRows", "PublishedSet", "published_sets", "read_published"]

log = get_logger(__name__)

OWNER = "RecursiveMAS"
_SHOWN = 5


@dataclass(frozen=True)
class PublishedSet:
    """A published training set, and what its columns are to a template's agents."""

    name: str
    """Name on the Hub, without its owner."""
    template: str
    """Template whose agents the texts belong to."""
    rows: int
    """Number of rows, all in the split `train`."""
    texts: Mapping[str, tuple[str, ...]]
    """Agent → columns with its text. The first one must be there; where it is empty in a row, the
    next one is used."""
    output: str
    """Agent that answers. Its text is what the outer loop learns to write."""
    columns: tuple[str, ...]
    """All columns, as the set's page documents them."""
    question: str = "question"
    """Column with the question."""
    answer: str = "answer"
    """Column with the final answer."""
    revision: str = ""
    """Commit on the Hub; empty if it is not pinned."""
    notes: str = ""
    """Remarks, such as columns whose names are assumed."""

    @property
    def source(self) -> str:
        """Data set on the Hub."""
        return f"{OWNER}/{self.name}"

    @property
    def needed(self) -> tuple[str, ...]:
        """Columns that every row must have."""
        own = (columns[0] for columns in self.texts.values())
        return tuple(dict.fromkeys((self.question, self.answer, *own)))

    def without_text(self, agents: Collection[str]) -> list[str]:
        """Agents of a team that the set has no text for; the loops give them the answer to learn.

        Raises:
            DataError: the set has texts for none of them.
        """
        left = [agent for agent in agents if agent not in self.texts]
        if agents and len(left) == len(agents):
            raise DataError(
                f"{self.source} has texts for {', '.join(self.texts)}, the agents of the template "
                f"{self.template!r}; the team's agents are {', '.join(agents)}. Give the agents "
                "these names, or name a column for each with --target agent=column"
            )
        return left


def _sequential(name: str, rows: int, **more: str) -> PublishedSet:
    texts = {"planner": ("plan",), "critic": ("refined_plan",), "solver": ("answer",)}
    columns = ("question", "plan", "refined_plan", "answer", "answer_field")
    return PublishedSet(name, "sequential", rows, texts, "solver", columns, **more)


def _distillation(name: str, rows: int) -> PublishedSet:
    texts = {
        "expert": ("distill_expert", "refined_plan"),
        "learner": ("distill_learner", "answer"),
    }
    columns = (
        *("question", "refined_plan", "answer", "distill_expert", "distill_learner"),
        *("task_family", "domain", "type", "source"),
    )
    return PublishedSet(name, "distillation", rows, texts, "learner", columns)


def _expert(name: str, rows: int, expert: str) -> PublishedSet:
    column = f"hie_{expert}_expert"
    columns = ("question", "answer", column, "type", "task_family", "domain")
    notes = f"Texts of one agent: in the published recipe, only {expert} learns from it."
    texts = {expert: (column,)}
    return PublishedSet(name, "mixture", rows, texts, "summarizer", columns, notes=notes)


def _mixture(
    name: str, answers: tuple[str, ...], columns: tuple[str, ...], notes: str = ""
) -> PublishedSet:
    experts = {agent: (f"hie_{agent}_expert",) for agent in ("math", "code", "science")}
    texts = {**experts, "summarizer": answers}
    return PublishedSet(name, "mixture", 4904, texts, "summarizer", columns, notes=notes)


_EXPERTS = ("hie_math_expert", "hie_code_expert", "hie_science_expert")
_SETS = (
    _sequential("Sequential-Math", 1904, revision="a6d16e286f7cd00f9d9bf19117c0fdf38f2d34d2"),
    _sequential("Sequential-Code", 19890),
    _distillation("Distillation-Math", 1904),
    _distillation("Distillation-Code", 19890),
    _expert("Mixture-Math", 1904, "math"),
    _expert("Mixture-Code", 2000, "code"),
    _expert("Mixture-Science", 1000, "science"),
    _mixture(
        "Mixture-Summarizer",
        ("hie_summarizer", "answer"),
        (
            *("question", "answer", "hie_summarizer", *_EXPERTS),
            *("type", "task_family", "domain", "fn_name"),
        ),
    ),
    _mixture(
        "Mixture-Outer",
        ("answer",),
        ("question", "answer", *_EXPERTS),
        "Its page was not at hand: the columns are those that the published trainer reads, and the "
        "number of rows is that of Mixture-Summarizer.",
    ),
    PublishedSet(
        "Deliberation",
        "deliberation",
        5000,
        {
            "reflector": ("deliberation_reflector", "answer"),
            "toolcaller": ("deliberation_toolcaller", "answer"),
        },
        "toolcaller",
        (
            *("question", "answer", "deliberation_reflector", "deliberation_toolcaller"),
            *("task_family", "domain", "tool_type", "type", "source", "source_idx"),
        ),
    ),
)
published_sets: Mapping[str, PublishedSet] = MappingProxyType({one.name: one for one in _SETS})
"""Every published training set by name."""


class PublishedRows(list[Row]):
    """Rows of a published set: a list, with the set that they belong to."""

    def __init__(self, rows: Iterable[Row], published: PublishedSet) -> None:
        super().__init__(rows)
        texts = published.texts
        self.published = published
        """The set."""
        self.answer_field = published.output if published.output in texts else published.answer
        """Field with the text of the agent that answers, for the loops' `answer_field`."""


def read_published(
    name: str,
    *,
    path: str | Path | None = None,
    revision: str | None = None,
    limit: int | None = None,
) -> PublishedRows:
    """Training rows of a published set, with a field for each agent.

    A row keeps its own columns. A text goes to the field named like its agent, where all loops look
    for it. Rows in which a text is empty are left out, and a warning names them.

    Args:
        name: Name of the set, such as `"Sequential-Math"`, with or without `"RecursiveMAS/"`.
        path: Local file with the set's columns: JSONL, JSON (a list, or an object that holds one
            under `data`, as the published scripts read it) or parquet. None reads from the Hub.
        revision: Commit, branch or tag to read from the Hub; None reads the pinned one, if any.
        limit: Maximum number of rows, from the start.

    Returns:
        A list of rows, with the name of the field that the outer loop learns to write.

    Raises:
        UnknownNameError: the set is unknown.
        DataError: the rows cannot be read or downloaded, or lack columns.

    Example:
        `rows = lm.training.read_published("Sequential-Math")`, then
        `lm.train(system, rows, output_dir="out", answer_field=rows.answer_field)`.
    """
    short = name.removeprefix(f"{OWNER}/")
    if short not in published_sets:
        raise UnknownNameError("published training set", short, published_sets)
    one = published_sets[short]
    if path is None:
        wanted = revision or one.revision or None
        table = download_table(one.source, split="train", revision=wanted, limit=limit)
    else:
        table = read_table(path, limit=limit)
    _check_columns(one, table)
    rows = [_with_texts(one, row) for row in table.rows]
    empty = [number for number, row in enumerate(rows) if row is None]
    if len(empty) == len(rows):
        raise DataError(f"{table.source}: every row has an empty text; see {one.source}")
    if empty:
        shown = ", ".join(map(str, empty[:_SHOWN])) + (" …" if len(empty) > _SHOWN else "")
        left_out = (one.name, len(empty), len(rows), shown)
        log.warning("%s: %d of %d rows left out for an empty text: %s", *left_out)
    return PublishedRows((row for row in rows if row is not None), one)


def _check_columns(one: PublishedSet, table: Table) -> None:
    for number, row in enumerate(table.rows):
        missing = [column for column in one.needed if column not in row]
        if missing:
            raise DataError(
                f"{table.where(number)} lacks {', '.join(map(repr, missing))}; it has: "
                f"{', '.join(map(str, row)):.300}; documented columns of {one.source}: "
                f"{', '.join(one.columns)}"
            )


def _with_texts(one: PublishedSet, row: Mapping[str, Any]) -> Row | None:
    """The row with a field for each agent; None if one of them would be empty."""
    texts = {
        agent: next((text for name in columns if (text := _text(row.get(name)))), "")
        for agent, columns in one.texts.items()
    }
    asked = _text(row[one.question])
    if not (asked and all(texts.values())):
        return None
    return {**row, "question": asked, **texts}


def _text(value: Any) -> str:
    return "" if value is None else str(value).strip()
