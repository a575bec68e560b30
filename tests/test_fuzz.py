"""Damaged files are taken or refused, never anything else; `benchmarks/fuzz.py` runs thousands."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.hostile.fuzzing import TARGETS, Fuzz, Target

SLOW = ("team: ", "checkpoint: ", "graph file (YAML)", "inspect")


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Fuzz:
    return Fuzz(tmp_path_factory.mktemp("fuzz"))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_the_seeds_are_taken(target: Target, fuzz: Fuzz) -> None:
    """Guards the test below: damage begins at what is sound."""
    for seed in target.seeds(fuzz):
        assert fuzz.case(target, seed) == "accepted"


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_damage_is_refused_or_harmless(target: Target, fuzz: Fuzz) -> None:
    strategy = target.damage(target.seeds(fuzz))
    found: set[str] = set()

    @settings(
        max_examples=20 if target.name.startswith(SLOW) else 40,
        suppress_health_check=list(HealthCheck),
    )
    @given(content=strategy)
    def run(content: bytes) -> None:
        found.add(fuzz.case(target, content))

    run()
    assert found - {"accepted"}, "nothing was refused: the damage does not reach the loader"
    assert fuzz.case(target, target.seeds(fuzz)[0]) == "accepted"


def test_what_is_found_is_seen(fuzz: Fuzz) -> None:
    """Guards the tests above: another exception is not swallowed."""

    def broken(_: Fuzz, path: Path) -> object:
        raise KeyError(path.name)

    target = Target("broken", lambda seeds: st.sampled_from(seeds), "x", lambda _: [b"x"], broken)
    with pytest.raises(KeyError):
        fuzz.case(target, b"x")
