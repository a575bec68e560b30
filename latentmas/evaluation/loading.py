"""`load_benchmark`: samples of a benchmark, from the Hub or from a file of the same form."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from latentmas.errors import DataError, LatentMASError
from latentmas.evaluation.benchmarks import Benchmark, benchmarks
from latentmas.tables import Table, digest_of, download_table, read_table

__all__ = ["Samples", "load_benchmark"]

Sample = dict[str, Any]
_SHOWN = 5
"""Maximum number of rows that one error names."""


class Samples(list[Sample]):
    """Samples of a benchmark: a list, with what must be known to load the same again.

    Each sample has the fields `id`, `question` and `answer`, and those that its benchmark adds.
    """

    def __init__(
        self,
        samples: Iterable[Sample],
        *,
        benchmark: Benchmark,
        source: str,
        digest: str,
        few_shot: int = 0,
    ) -> None:
        super().__init__(samples)
        self.benchmark = benchmark
        """The benchmark."""
        self.source = source
        """File, or data set with its revision, configuration and split."""
        self.digest = digest
        """SHA-256 of the rows before they became samples."""
        self.few_shot = few_shot
        """Number of solved examples before each question."""


def load_benchmark(
    benchmark: str | Benchmark,
    *,
    path: str | Path | None = None,
    split: str | None = None,
    revision: str | None = None,
    limit: int | None = None,
    few_shot: int = 0,
    seed: int | None = None,
    instruction: bool = True,
) -> Samples:
    """Samples of a benchmark, ready to run and to grade.

    The question of a sample is the data set's own, followed by a blank line and the benchmark's
    sentence about the form of the answer, unless the question holds that sentence already. With
    few-shot examples it has this form:

        Question: <an example's question>
        Answer: <its solution>

        Question: <the question>

        <the sentence>

    An example that asks the same question as a sample is left out of that sample's prompt.

    Args:
        benchmark: Registered name, or a benchmark of your own.
        path: Local file with the columns of the data set: JSONL, JSON or CSV, which may be
            compressed (.gz), or parquet. None reads from the Hub.
        split: Split to read from the Hub; None reads the benchmark's.
        revision: Commit, branch or tag to read from the Hub; None reads the benchmark's.
        limit: Maximum number of samples, from the start of the data.
        few_shot: Number of solved examples before each question.
        seed: Draws the few-shot examples at random; None takes the first ones. It changes neither
            the samples nor the order of options.
        instruction: Whether to add the sentence about the form of the answer. Prompts of templates
            have such a sentence of their own.

    Returns:
        A list of samples. Identifiers are the data set's own; otherwise they are digests of the
        questions, so they depend on neither the order nor the source of the rows.

    Raises:
        UnknownNameError: the benchmark is unknown.
        DataError: the data cannot be read or downloaded, lacks columns or cannot be understood;
            the benchmark has fewer examples than wanted.
        LatentMASError: an argument is out of range.
    """
    kind = benchmarks.get(benchmark) if isinstance(benchmark, str) else benchmark
    for name, value, least in (("limit", limit, 1), ("few_shot", few_shot, 0)):
        if value is not None and (isinstance(value, bool) or int(value) != value or value < least):
            raise LatentMASError(f"{name} is {value!r}; give a whole number of at least {least}")
    examples = _examples(kind, few_shot, seed)
    table = _table(kind, path, split, revision, limit)
    _check_columns(kind, table)
    samples = [_sample(kind, table, number) for number in range(len(table.rows))]
    _number(samples)
    sentence = kind.instruction if instruction else ""
    for sample in samples:
        sample["question"] = _prompt(sample["question"], examples, sentence)
    digest = digest_of(table.rows)
    return Samples(
        samples, benchmark=kind, source=table.source, digest=digest, few_shot=len(examples)
    )


def _examples(kind: Benchmark, count: int, seed: int | None) -> list[Mapping[str, str]]:
    if count > len(kind.examples):
        raise DataError(
            f"few_shot is {count}, but {kind.name} has {len(kind.examples)} solved examples; give "
            "at most that many"
        )
    if seed is None:
        return list(kind.examples[:count])
    return random.Random(seed).sample(list(kind.examples), count)


def _table(
    kind: Benchmark,
    path: str | Path | None,
    split: str | None,
    revision: str | None,
    limit: int | None,
) -> Table:
    if path is None:
        return download_table(
            kind.source,
            config=kind.config,
            split=split or kind.split,
            revision=revision or kind.revision or None,
            limit=limit,
            gated=kind.gated,
        )
    for name, value in (("split", split), ("revision", revision)):
        if value is not None:
            raise LatentMASError(f"{name} is {value!r}, but a file has none; leave it out")
    return read_table(path, limit=limit)


def _check_columns(kind: Benchmark, table: Table) -> None:
    """Check that every row has what the benchmark reads; the error names the first few."""
    found = ((number, kind.missing(row)) for number, row in enumerate(table.rows))
    bad = [(number, names) for number, names in found if names]
    if not bad:
        return
    lines = [
        f"{table.where(number)} lacks {', '.join(map(repr, names))}; it has: "
        + (f"{', '.join(map(str, table.rows[number])):.200}" or "nothing")
        for number, names in bad[:_SHOWN]
    ]
    more = f"\nand {len(bad) - _SHOWN} more rows" if len(bad) > _SHOWN else ""
    raise DataError(
        f"{len(bad)} of {len(table.rows)} rows do not have the columns of {kind.name} "
        f"({kind.source}):\n" + "\n".join(lines) + more
    )


def _sample(kind: Benchmark, table: Table, number: int) -> Sample:
    try:
        sample = kind.read(table.rows[number])
        if not str(sample["question"]).strip():
            raise ValueError("the question is empty")
        if sample["answer"] is None or sample["answer"] in ("", []):
            raise ValueError("the answer is empty")
    except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        reason = f"{error!r}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{table.where(number)}: not a row of {kind.name}: {reason}") from error
    return sample


def _number(samples: list[Sample]) -> None:
    """Give every sample an identifier of its own."""
    seen: dict[str, int] = {}
    for sample in samples:
        own = sample.get("id")
        if own is None:
            own = hashlib.sha256(str(sample["question"]).encode(errors="surrogatepass")).hexdigest()
            own = own[:16]
        count = seen[str(own)] = seen.get(str(own), 0) + 1
        sample["id"] = str(own) if count == 1 else f"{own}-{count}"


def _prompt(question: str, examples: Iterable[Mapping[str, str]], sentence: str) -> str:
    """A question as it is asked: after the examples, and before the sentence."""
    parts = [
        f"Question: {one['question']}\nAnswer: {one['answer']}"
        for one in examples
        if one["question"].split() != question.split()
    ]
    parts.append(f"Question: {question}" if parts else question)
    if sentence and sentence not in question:
        parts.append(sentence)
    return "\n\n".join(parts)
