"""Rows of text for training: where they come from, whether they are whole, whether they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from latentmas.errors import DataError
from latentmas.plan import Plan
from latentmas.runtime import System
from latentmas.runtime.packing import answer_ids, count_positions
from latentmas.spec._plain import parse_json

__all__ = ["Data", "Rows", "TrainingRows", "drop_long_rows", "read_rows"]

Row = Mapping[str, Any]
Rows = Sequence[Row]
Data = Rows | str | Path
"""A sequence of mappings (a list, a `datasets.Dataset`), or a JSONL file."""


class TrainingRows(Sequence[tuple[int, Row]]):
    """Rows with their numbers, in their own names.

    Args of the constructor: the rows, and `columns`: name wanted → name in the data.
    """

    def __init__(
        self,
        rows: Rows,
        columns: Mapping[str, str] | None = None,
        keep: Sequence[int] | None = None,
    ) -> None:
        self._rows, self._columns = rows, dict(columns or {})
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
        return TrainingRows(self._rows, self._columns, keep)

    def check(self, fields: Sequence[str], what: str) -> None:
        """Every row holds every field.

        Raises:
            DataError: naming the first row and field that do not.
        """
        if len(self) == 0:
            raise DataError(f"{what} has no rows")
        for number, row in self:
            if not isinstance(row, Mapping):
                found = type(row).__name__
                raise DataError(f"{what}, row {number}: {found}, not a mapping of fields")
            for name in fields:
                if name not in row:
                    found = ", ".join(map(str, row)) or "nothing"
                    raise DataError(
                        f"{what}, row {number} lacks the field {name!r}; it has: {found}; "
                        f"columns={{{name!r}: …}} takes another column for it"
                    )


def read_rows(data: Data, columns: Mapping[str, str] | None = None) -> TrainingRows:
    """Rows from a list, a dataset or a JSONL file.

    Args:
        data: where from.
        columns: name wanted → name in the data.

    Raises:
        DataError: the file cannot be read, or a line of it is no JSON.
    """
    if not isinstance(data, str | Path):
        return TrainingRows(data, columns)
    try:
        lines = Path(data).read_text(encoding="utf-8").split("\n")
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read {str(data)!r}: {error}") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            rows.append(parse_json(line, numbers="any"))
        except ValueError as error:
            raise DataError(f"{data}, line {number} is not JSON: {error}") from error
    return TrainingRows(rows, columns)


def drop_long_rows(
    system: System, plan: Plan, rows: TrainingRows, answer_field: str, max_length: int | None
) -> tuple[TrainingRows, list[int]]:
    """Leave out rows that some agent could not read whole, with its latent steps or the answer.

    Args:
        system: whose backbones bound the length.
        plan: its depth.
        rows: the data.
        answer_field: of the output agent's answer.
        max_length: a bound of one's own, in positions.

    Returns:
        The rows that fit, and the numbers of the others.
    """
    long = [
        number for number, row in rows if not _fits(system, plan, row, answer_field, max_length)
    ]
    if not long:
        return rows, []
    if len(long) == len(rows):
        raise DataError(f"every one of {len(rows)} rows is longer than its agents can read")
    left_out = set(long)
    return rows.only([number for number, _ in rows if number not in left_out]), long


def _fits(system: System, plan: Plan, row: Row, answer_field: str, max_length: int | None) -> bool:
    shown = sum(len(str(row[name]).encode()) for name in (*plan.graph.inputs, answer_field))
    for agent in plan.graph.agents:
        backbone = system.backbone_of(agent.name)
        bounds = [n for n in (backbone.planned.info.max_positions, max_length) if n is not None]
        if not bounds:
            continue
        steps = plan.graph.steps_of(agent)
        senders = [e for e in plan.graph.edges if e.target == agent.name]
        sizes = {
            str(e.slot): plan.graph.steps_of(plan.graph.agent(e.source))
            for e in senders
            if e.source in {a.name for a in plan.graph.agents}
        }
        template = len(agent.prompt.encode()) + len((agent.system or "").encode())
        if shown + template + sum(sizes.values()) + steps + _TEMPLATE_ROOM <= min(bounds):
            continue  # a token has a byte at least
        scope = {name: row[name] for name in plan.graph.inputs} | {
            str(e.slot): "" for e in senders if str(e.slot) not in sizes
        }
        answer = len(answer_ids(backbone, str(row[answer_field])))
        more = max(steps, answer) if agent.name == plan.output else steps
        if count_positions(backbone, agent, scope, sizes) + more > min(bounds):
            return False
    return True


_TEMPLATE_ROOM = 256
"""Bytes that a chat template may add to a prompt, for the quick bound."""
