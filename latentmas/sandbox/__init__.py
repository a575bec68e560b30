"""A Python program is run where it can compute and print, and nothing else. No torch."""

from latentmas.sandbox.limits import MEBIBYTE, Limits
from latentmas.sandbox.packages import find_packages
from latentmas.sandbox.run import (
    KINDS,
    Kind,
    refusal,
    run_program,
    sandbox_facts,
    sandbox_kind,
    working,
)
from latentmas.sandbox.watch import Finished

__all__ = [
    "KINDS",
    "MEBIBYTE",
    "Finished",
    "Kind",
    "Limits",
    "find_packages",
    "refusal",
    "run_program",
    "sandbox_facts",
    "sandbox_kind",
    "working",
]
