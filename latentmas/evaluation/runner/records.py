"""One evaluated row as plain data: a line of a results file."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from latentmas.errors import DataError
from latentmas.spec import canonical_json

__all__ = ["Answer", "RowRecord", "key_of_row", "name_samples", "seed_of_row"]


@dataclass(frozen=True)
class Answer:
    """One generated answer and its grade."""

    text: str
    answer: str | None
    """Answer that the grader found in the text."""
    right: bool
    score: float
    reason: str
    finish_reason: str
    """`"stop"`, `"length"` or `"tool_limit"`."""
    new_tokens: int
    """Number of tokens, including those that tools added."""
    token_ids: tuple[int, ...] = ()
    group: int = 0
    """Number of the first answer of the row that gives the same answer, for majority votes."""


@dataclass(frozen=True)
class RowRecord:
    """One row of one system: what was asked, what was answered, and what it cost."""

    system: str
    """`"team"`, or the name of a control."""
    row: int
    """Number of the row in the data, from 0."""
    key: str
    """Digest of the sample and of everything its answer depends on."""
    sample: Mapping[str, Any]
    """The row of the data."""
    gold: Any
    """Correct answer, as the data has it."""
    prompt: str
    """Prompt of the output agent; messages stand as `<message: 16 rows>`."""
    answers: tuple[Answer, ...]
    """Generated answers with their grades; none for a failed row."""
    prompt_tokens: int
    """Prompt positions of all agents, including the rows of messages."""
    latent_steps: int
    """Latent steps of all agents."""
    new_tokens: int
    """Tokens that all agents generated."""
    seconds: float
    """The row's share of the time of its batch."""
    grader: str
    """Name of the grader."""
    tool_calls: tuple[Mapping[str, Any], ...] = ()
    """Tool calls of all agents."""
    error: str | None = None
    """Why the row has no answer."""

    @property
    def score(self) -> float:
        """Mean score of the answers, 0 to 1; 0 for a failed row."""
        return sum(one.score for one in self.answers) / len(self.answers) if self.answers else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; `prediction` and `right` repeat the first answer's."""
        first = self.answers[0] if self.answers else None
        return {
            "system": self.system,
            "row": self.row,
            "prediction": None if first is None else first.text,
            "right": first is not None and first.right,
            "score": self.score,
        } | {name: value for name, value in asdict(self).items() if name not in ("system", "row")}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> RowRecord:
        """Read a line of a results file.

        Args:
            data: the line's content.
            where: file and line, for errors.

        Raises:
            DataError: a field is missing.
        """
        names = [one.name for one in fields(cls)]
        missing = [name for name in names if name not in data]
        if missing:
            raise DataError(
                f"{where}: not a row of an evaluation; it lacks {', '.join(missing)}. Name a file "
                "that `latentmas eval -o` wrote"
            )
        made = {name: data[name] for name in names} | {"answers": _answers(data["answers"], where)}
        return cls(**made | {"tool_calls": tuple(data["tool_calls"])})


def _answers(given: Any, where: str) -> tuple[Answer, ...]:
    names = [one.name for one in fields(Answer)]
    try:
        found = [{name: one[name] for name in names} for one in given]
        return tuple(Answer(**one | {"token_ids": tuple(one["token_ids"])}) for one in found)
    except (AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{where}: its answers cannot be read: {error}") from error


def _digest_sample(sample: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of a sample; the order of its fields does not matter.

    Raises:
        DataError: JSON cannot represent the sample.
    """
    try:
        text = canonical_json(dict(sample))
    except (TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"a sample cannot be converted to JSON: {error}; use plain values with text keys"
        ) from error
    return _digest(text)


def name_samples(samples: Iterable[Mapping[str, Any]]) -> list[str]:
    """A name for each sample that does not depend on its place: its digest.

    Equal samples are told apart by their order.
    """
    seen: dict[str, int] = {}
    names = []
    for sample in samples:
        own = _digest_sample(sample)
        seen[own] = seen.get(own, 0) + 1
        names.append(own if seen[own] == 1 else f"{own} {seen[own]}")
    return names


def key_of_row(settings: str, *names: str) -> str:
    """Key of a row: a digest of everything that its answer depends on.

    Args:
        settings: digest of team and options.
        *names: name of the sample, and of others that the answer depends on.
    """
    return _digest(" ".join((settings, *names)))[:32]


def seed_of_row(seed: int, name: str) -> int:
    """Sampling seed of a row, whatever its place among other rows.

    Args:
        seed: seed of the evaluation.
        name: name of the row's sample.
    """
    return int(_digest(f"{seed} {name}")[:8], 16)


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
