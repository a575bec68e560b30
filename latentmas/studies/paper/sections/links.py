"""Designs of links: with a residual branch and without, of one layer and of two."""

from __future__ import annotations

from latentmas.studies.paper._base import Outcome, Section, sections
from latentmas.studies.paper._sweeps import outcome_of, pair_verdict, relay_sweep, row_of
from latentmas.studies.paper.work import Work

__all__ = ["Links"]

RESIDUAL = "A residual branch helps a link of one layer."
RESIDUAL_TWO = "A residual branch helps a link of two layers."
TWO = "With a residual branch, two layers are better than one."
CHOSEN = "The paper's link is better than a link of one layer without a residual branch."
VOCABULARY = "A link through the vocabulary is better than the paper's link here."
CLAIMS = (
    (RESIDUAL, "84.4 to 86.7", "linear_residual", "linear", False),
    (RESIDUAL_TWO, "85.6 to 88.0", "mlp_residual", "mlp", False),
    (TWO, "86.7 to 88.0", "mlp_residual", "linear_residual", False),
    (CHOSEN, "88.0 against 84.4", "recursive", "linear", False),
    (VOCABULARY, "", "soft_token", "recursive", True),
)


@sections.register("links")
class Links(Section):
    """A sweep over kinds of the outer link."""

    title = "Designs of links"
    claim = (
        "A residual branch matters in links, and two layers a little: 84.4 with one layer, 85.6 "
        "with two, 86.7 and 88.0 with a residual branch."
    )
    task = (
        "The relay, with another kind of outer link in each team; the reader's inner link goes "
        "through the vocabulary in all of them. Links of the paper's designs start as they do by "
        "default and have the same short training, so that this also measures how soon they learn."
    )

    @staticmethod
    def run(work: Work) -> Outcome:
        """Sweep over kinds, and compare pairs of them."""
        found = relay_sweep(work, {"link": work.sizes.kinds})
        rows = {kind: row_of(found, {"link": kind}) for kind in work.sizes.kinds}
        verdicts = [
            pair_verdict(
                claim,
                rows.get(one),
                rows.get(other),
                f"{one} less {other}",
                paper=paper,
                control=control,
            )
            for claim, paper, one, other, control in CLAIMS
        ]
        return outcome_of(work, found, "Kinds of the outer link", verdicts)
