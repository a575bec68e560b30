"""Files that a stranger might send: each with the loader that it is given to.

`CASES` is what `benchmarks/hostile.py` prints and `tests/test_hostile.py` checks.
"""

from __future__ import annotations

from tests.hostile import artefacts, graphs, pickles, prompts, weights
from tests.hostile.base import LOADERS, Base, Case

__all__ = ["CASES", "LOADERS", "Base", "Case"]

CASES: tuple[Case, ...] = (
    *weights.CASES,
    *artefacts.CASES,
    *graphs.CASES,
    *prompts.CASES,
    *pickles.CASES,
)
