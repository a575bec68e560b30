"""Rows of text for training: where they come from, whether they are whole, whether they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from latentmas.engine import answer_ids, count_positions
from latentmas.errors import DataError
from latentmas.plan import Plan
from latentmas.redact import get_logger
from latentmas.runtime import System
from latentmas.spec import EdgeSpec, JsonlFile, field_problem, read_jsonl

__all__ = ["Data", "Reading", "Rows", "TrainingRows", "drop_long_rows", "read_rows"]

log = get_logger(__name__)

Row = Mapping[str, Any]
Rows = Sequence[Row]
Data = Rows | str | Path
"""A sequence of mappings (a list, a `datasets.Dataset`), or a JSONL file."""


class TrainingRows(Sequence[tuple[int, Row]]):
    """Rows with their numbers, in their own names.

    Args of the constructor: the rows; `columns`: name wanted → name in the data; `keep`: numbers of
    the rows that are taken; `file`: where the rows come from, for messages.
    """

    def __init__(
        self,
        rows: Rows,
        columns: Mapping[str, str] | None = None,
        keep: Sequence[int] | None = None,
        file: JsonlFile | None = None,
    ) -> None:
        self._rows, self._columns, self._file = rows, dict(columns or {}), file
        self._keep = range(len(rows)) if keep is None else keep

    def __len__(self) -> int:
        return len(self._keep)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        number = self._keep[place]
        return number, self.row(number)

    def row(self, number: int) -> Row:
        """The row of that number in the data, under the names that are wanted."""
        row = self._rows[number]
        if not self._columns or not isinstance(row, Mapping):
            return row
        return {**row, **{want: row[name] for want, name in self._columns.items() if name in row}}

    def plain(self) -> list[Row]:
        """The rows without their numbers."""
        return [row for _, row in self]

    def only(self, keep: Sequence[int]) -> TrainingRows:
        """The rows of these numbers."""
        return TrainingRows(self._rows, self._columns, keep, self._file)

    def check(self, fields: Sequence[str], what: str) -> None:
        """Every row holds every field.

        Raises:
            DataError: naming the first row and field that do not.
        """
        if len(self) == 0:
            raise DataError(f"{what} has no rows")
        for number, row in self:
            for name in fields:
                problem = field_problem(self._where(what, number), row, name, null=False)
                if problem is not None:
                    other = f"; columns={{{name!r}: …}} takes another column for it"
                    lacks = isinstance(row, Mapping) and name not in row
                    raise DataError(problem + (other if lacks else ""))

    def _where(self, what: str, number: int) -> str:
        line = f" ({self._file.where(number)})" if self._file is not None else ""
        return f"{what}, row {number}{line}"


def read_rows(data: Data, columns: Mapping[str, str] | None = None) -> TrainingRows:
    """Rows from a list, a dataset or a JSONL file.

    Args:
        data: where from.
        columns: name wanted → name in the data.

    Raises:
        DataError: the file cannot be read, a line of it is not a JSON object, or the data is not a
            sequence of rows.
    """
    if isinstance(data, Mapping):
        raise DataError(
            "one mapping is not a sequence of rows; give a list of mappings, one per row"
        )
    if not isinstance(data, str | Path):
        return TrainingRows(data, columns)
    file = read_jsonl(data)
    return TrainingRows(file.rows, columns, file=file)


@dataclass(frozen=True)
class Reading:
    """What agents read and write of a row in training, beside its inputs; by agent."""

    own: Mapping[str, str] = field(default_factory=dict)
    """Field with the text that follows the agent's prompt."""
    said: Mapping[str, str] = field(default_factory=dict)
    """Field with the text that stands in the slots of its receivers; others get latents."""
    feedback: bool = True
    """Whether slots of feedback edges are filled."""


def drop_long_rows(
    system: System, plan: Plan, rows: TrainingRows, reading: Reading, max_length: int | None
) -> tuple[TrainingRows, list[int]]:
    """Leave out rows that some agent could not read whole, with its latent steps or its text.

    Args:
        system: whose backbones bound the length.
        plan: its depth.
        rows: the data.
        reading: what is read of a row.
        max_length: a bound of one's own, in positions.

    Returns:
        The rows that fit, and the numbers of the others, of which a warning tells.

    Raises:
        DataError: no row fits.
    """
    long = [number for number, row in rows if not _fits(system, plan, row, reading, max_length)]
    if not long:
        return rows, []
    if len(long) == len(rows):
        raise DataError(f"every one of {len(rows)} rows is longer than its agents can read")
    left_out, shown = set(long), ", ".join(map(str, long[:5]))
    log.warning("%d rows are too long and left out: %s …", len(long), shown)
    return rows.only([number for number, _ in rows if number not in left_out]), long


def _fits(system: System, plan: Plan, row: Row, reading: Reading, max_length: int | None) -> bool:
    fields = {*plan.graph.inputs, *reading.own.values(), *reading.said.values()}
    shown = sum(len(str(row[name]).encode()) for name in fields)
    for agent in plan.graph.agents:
        backbone = system.backbone_of(agent.name)
        bounds = [n for n in (backbone.planned.info.max_positions, max_length) if n is not None]
        if not bounds:
            continue
        steps = plan.graph.steps_of(agent)
        senders = [
            e for e in plan.graph.edges if e.target == agent.name and reading.feedback >= e.delay
        ]
        said, sizes = _slots(plan, row, reading, senders)
        template = len(agent.prompt.encode()) + len((agent.system or "").encode())
        if shown + template + sum(sizes.values()) + steps + _TEMPLATE_ROOM <= min(bounds):
            continue  # a token has a byte at least
        scope = {name: row[name] for name in plan.graph.inputs} | {
            str(e.slot): said.get(str(e.slot), "") for e in senders if str(e.slot) not in sizes
        }
        own = reading.own.get(agent.name)
        more = steps if own is None else max(steps, len(answer_ids(backbone, str(row[own]))))
        if count_positions(backbone, agent, scope, sizes) + more > min(bounds):
            return False
    return True


def _slots(
    plan: Plan, row: Row, reading: Reading, senders: Sequence[EdgeSpec]
) -> tuple[dict[str, str], dict[str, int]]:
    """What fills the slots of a prompt: texts, and numbers of latents; edges may share a slot."""
    agents = {agent.name for agent in plan.graph.agents}
    said, sizes = dict[str, str](), dict[str, int]()
    for edge in senders:
        slot = str(edge.slot)
        if edge.source in reading.said:
            text = str(row[reading.said[edge.source]])
            said[slot] = f"{said[slot]}\n{text}" if slot in said else text
        elif edge.source in agents:
            count, before = plan.graph.steps_of(plan.graph.agent(edge.source)), sizes.get(slot, 0)
            sizes[slot] = max(before, count) if edge.combine == "mean" else before + count
    return said, sizes


_TEMPLATE_ROOM = 256
"""Bytes that a chat template may add to a prompt, for the quick bound."""
