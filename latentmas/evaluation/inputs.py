"""Samples for any graph: which field of a sample fills which input."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from latentmas.errors import DataError

__all__ = ["fill_inputs"]

_GRADED = ("answer", "id")
"""Fields that an input cannot replace: graders and results need them."""


def fill_inputs(
    samples: Sequence[Mapping[str, Any]],
    inputs: Iterable[str],
    fields: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Add the inputs of a graph to samples.

    An input takes the field that `fields` names for it; otherwise the field of its own name;
    otherwise `question`, if no other input takes that.

    Args:
        samples: Samples of a benchmark, or other rows.
        inputs: Names of the graph's inputs, `plan.graph.inputs`.
        fields: Input → field of the samples. On the command line: `--field input=field`.

    Returns:
        Copies of the samples with a field for each input.

    Raises:
        DataError: an input has no field, a name is unknown, or an input would replace the answer
            or the identifier; the message lists what is there.
    """
    names, given = list(inputs), dict(fields or {})
    shared = _shared(samples)
    there = ", ".join(shared) or "nothing"
    for name, field in given.items():
        if name not in names:
            raise DataError(
                f"--field {name}={field}: {name!r} is not an input of the graph; its inputs: "
                f"{', '.join(names) or 'none'}"
            )
        if field not in shared:
            raise DataError(
                f"--field {name}={field}: the samples do not all have the field {field!r}; all of "
                f"them have: {there}"
            )
        if name in _GRADED and field != name:
            raise DataError(
                f"--field {name}={field}: it would replace the field {name!r}, which grading "
                "needs; give the graph's input another name"
            )
    taken = {name: given.get(name, name) for name in names if name in given or name in shared}
    left = [name for name in names if name not in taken]
    if len(left) == 1 and "question" in shared and "question" not in taken.values():
        taken[left.pop()] = "question"
    if left:
        raise DataError(
            f"no field fills the inputs {', '.join(left)}; fields of the samples: {there}; name "
            f"one with --field {left[0]}=FIELD"
        )
    return [{**row, **{name: row[field] for name, field in taken.items()}} for row in samples]


def _shared(samples: Sequence[Mapping[str, Any]]) -> list[str]:
    """Fields that all samples have, in the order of the first."""
    if not samples:
        return []
    shared = set(samples[0]).intersection(*map(set, samples))
    return [name for name in samples[0] if name in shared]
