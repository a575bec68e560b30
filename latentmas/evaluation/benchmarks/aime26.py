"""AIME 2026: the American Invitational Mathematics Examination, both papers."""

from __future__ import annotations

from typing import Any

from latentmas.evaluation.benchmarks import Benchmark, Row, benchmarks
from latentmas.evaluation.benchmarks._aime import SHARED, sample_of

__all__ = ["AIME26"]


def read(row: Row) -> dict[str, Any]:
    """The problem and its result, an integer from 0 to 999."""
    return sample_of(row)


AIME26 = benchmarks.register("aime26")(
    Benchmark(
        name="aime26",
        title="AIME 2026",
        source="math-ai/aime26",
        revision="79037aebdb6580008fb960d17cb21fd3099083e3",
        read=read,
        citation="Mathematical Association of America, AIME I and II, 2026",
        notes="The paper reports pass@10 of 10 answers per problem. Its code writes 8,192 tokens "
        "with its small models and 16,000 with the others. The examples were written for this "
        "package.",
        **SHARED,
    )
)
