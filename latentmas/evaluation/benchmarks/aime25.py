"""AIME 2025: the American Invitational Mathematics Examination, both papers."""

from __future__ import annotations

from typing import Any

from latentmas.evaluation.benchmarks import Benchmark, Row, benchmarks
from latentmas.evaluation.benchmarks._aime import SHARED, sample_of

__all__ = ["AIME25"]


def read(row: Row) -> dict[str, Any]:
    """The problem and its result, an integer from 0 to 999."""
    return sample_of(row)


AIME25 = benchmarks.register("aime25")(
    Benchmark(
        name="aime25",
        title="AIME 2025",
        source="math-ai/aime25",
        revision="563bb8404243c5f09de6ec262f2db674fe5bce9b",
        read=read,
        citation="Mathematical Association of America, AIME I and II, 2025",
        notes="The paper reports pass@10 of 10 answers per problem. Its code writes 8,192 tokens "
        "with its small models and 16,000 with the others. The examples were written for this "
        "package.",
        **SHARED,
    )
)
