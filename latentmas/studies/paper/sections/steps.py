"""Numbers of latent steps."""

from __future__ import annotations

from itertools import pairwise

from latentmas.studies.paper._base import Outcome, Section, sections
from latentmas.studies.paper._sweeps import outcome_of, pair_verdict, relay_sweep, row_of
from latentmas.studies.paper.work import Work

__all__ = ["Steps"]


@sections.register("steps")
class Steps(Section):
    """A sweep over K."""

    title = "Latent steps"
    claim = "More latent steps answer better; the gains level off near 80."
    task = (
        "The relay, with K latent steps of the reader in training and in runs. A passage of two "
        "facts takes about ten rows, so that K = 4 and 8 cut it off."
    )

    @staticmethod
    def run(work: Work) -> Outcome:
        """Sweep over K, and compare each value with the one before."""
        values = sorted(work.sizes.values)
        found = relay_sweep(work, {"latent_steps": values})
        rows = {k: row_of(found, {"latent_steps": k}) for k in values}
        verdicts = [
            pair_verdict(
                f"{more} latent steps are better than {fewer}.",
                rows[more],
                rows[fewer],
                f"K = {more} less K = {fewer}",
                paper="gains up to about 80 steps",
            )
            for fewer, more in pairwise(values)
        ]
        return outcome_of(work, found, "Latent steps", verdicts)
