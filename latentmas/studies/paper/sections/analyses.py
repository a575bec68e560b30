"""What messages hold: distances to the answer, gradients by round, and meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from latentmas.evaluation import mean_interval
from latentmas.io import digest_rows
from latentmas.runtime import System
from latentmas.studies.paper._asking import asking_trained
from latentmas.studies.paper._base import Outcome, Section, sections
from latentmas.studies.paper.tasks import asking_rows, relay_rows, relay_trained, training_of
from latentmas.studies.paper.verdicts import Verdict, judge, judge_range
from latentmas.studies.paper.work import Work
from latentmas.studies.tabulate import Sheet

__all__ = ["Analyses"]

Plain = Mapping[str, Any]
STEADY = (0.5, 2.0)
"""Bounds of the ratio of two rounds' gradient norms within which they count as stable."""


@sections.register("analyses")
class Analyses(Section):
    """Analyses of the relay's team and of a team with rounds, trained with seed 0."""

    title = "What messages hold"
    claim = (
        "Over rounds, latent states move towards the correct answers, and gradients stay stable "
        "through the recursion, where those through text vanish."
    )
    task = (
        "The trained teams of the sections on the relay and on rounds (seed 0), on held-out "
        "questions. Controls are the answers of other questions, shuffled labels and untrained "
        "links."
    )
    uses = ("relay", "rounds")

    @staticmethod
    def run(work: Work) -> Outcome:
        """Analyse both teams."""
        own = {name: work.beside(name) for name in ("relay", "rounds")}
        depth = max(own["rounds"].sizes.train_rounds)
        relay = relay_rows(own["relay"].sizes)[: work.sizes.rows]
        asking = asking_rows(own["rounds"].sizes)[1][: work.sizes.rows]
        first = _analysed(work, "relay", relay, 1, lambda: relay_trained(work, 0))
        many = _analysed(work, "rounds", asking, depth, lambda: asking_trained(work, depth, 0))
        tables, notes = dict[str, Sheet](), list[str]()
        for team, found in (("relay", first), ("rounds", many)):
            for one in found.values():
                notes += [f"{team}: {line}" for line in one["verdict"]]
                for caption, plain in one["sheets"].items():
                    tables[f"{team}: {caption}"] = Sheet(
                        tuple(plain["head"]),
                        [tuple(row) for row in plain["rows"]],
                        tuple(plain["notes"]),
                        plain["words"],
                    )
        return Outcome(
            verdicts=[
                *_near("relay", first),
                *_near("rounds", many),
                *_approach(many),
                *_stable(many),
                *_says("relay", first),
            ],
            tables=tables,
            n=len(relay),
            seeds=1,
            notes=notes,
        )


def _analysed(
    work: Work, team: str, rows: Sequence[Plain], rounds: int, load: Any
) -> dict[str, Any]:
    """What the analyses found of a team, once."""
    from latentmas.studies.analyses import analyse

    sizes = work.beside(team).sizes
    needs = {"rows": digest_rows(rows), "what": work.sizes.what, "rounds": rounds}
    needs |= {"training": training_of(sizes), "models": dict(work.preset.models)}

    def make() -> dict[str, Any]:
        system: System = load()
        report = analyse(system, rows, what=work.sizes.what, rounds=rounds)
        return {
            name: {
                "verdict": list(one.verdict),
                "sheets": {caption: asdict(sheet) for caption, sheet in one.sheets.items()},
                "data": one.data,
            }
            for name, one in report.findings.items()
        }

    found: dict[str, Any] = work.once(team, needs, make)
    return found


def _near(team: str, found: Plain) -> Iterator[Verdict]:
    """Whether messages are nearer to their own answer than to others, in the last round."""
    measured = _cosines(found)
    for edge in dict.fromkeys(one["edge"] for one in measured):
        last = [one for one in measured if one["edge"] == edge][-1]
        difference = last["difference"]
        yield judge(
            f"Messages of {edge} are nearer to the correct answer than to other answers.",
            difference["mean"],
            (difference["low"], difference["high"]),
            control=True,
            unit="cosine",
            what=f"{team}, round {last['round']}, own less other answers",
        )


def _approach(found: Plain) -> Iterator[Verdict]:
    """Whether messages come nearer from the first round to the last."""
    measured = _cosines(found)
    for edge in dict.fromkeys(one["edge"] for one in measured):
        own = [one for one in measured if one["edge"] == edge]
        claim = f"Messages of {edge} move towards the correct answer over rounds."
        if len(own) < 2:
            continue
        first, last = ([a - b for a, b in _pairs(one)] for one in (own[0], own[-1]))
        change = [b - a for a, b in zip(first, last, strict=True)]
        yield judge(
            claim,
            sum(change) / len(change),
            mean_interval(change),
            paper="towards the answers",
            unit="cosine",
            what=f"round {own[-1]['round']} less round {own[0]['round']}",
        )


def _pairs(one: Plain) -> Iterator[tuple[float, float]]:
    return zip(one["own_by_question"], one["others_by_question"], strict=True)


def _cosines(found: Plain) -> list[dict[str, Any]]:
    measured = found["distances"]["data"]["measured"] if "distances" in found else []
    return [one for one in measured if one["measure"] == "cosine"]


def _stable(found: Plain) -> Iterator[Verdict]:
    """Whether gradients at the first round's messages are like those at the last's."""
    if "gradients" not in found:
        return
    for side in found["gradients"]["data"]["sides"]:
        for edge, norms in _by_edge(side["gradient_norms"]).items():
            if len(norms) < 2:
                continue
            first, last = norms[0], norms[-1]
            known = last["low"] > 0 and last["high"] > 0
            yield judge_range(
                f"Gradients of {side['links']} links stay stable over rounds at {edge}.",
                first["low"] / last["high"] if known else None,
                first["high"] / last["low"] if known else None,
                STEADY,
                paper="stable",
                what="norm in the first round over that in the last",
            )


def _by_edge(norms: Plain) -> dict[str, list[Plain]]:
    """Norms by edge, in the order of rounds; names are `round1.reader->answerer`."""
    found: dict[str, list[Plain]] = {}
    for name, norm in norms.items():
        found.setdefault(name.partition(".")[2], []).append(norm)
    return found


def _says(team: str, found: Plain) -> Iterator[Verdict]:
    """Whether the nearest tokens name the answer more often than other answers."""
    for one in found["meaning"]["data"]["messages"] if "meaning" in found else []:
        difference = one["difference"]
        yield judge(
            f"Tokens near messages of {one['edge']} name the correct answer.",
            difference["mean"],
            (difference["low"], difference["high"]),
            control=True,
            what=f"{team}, round {one['round']}, own less other answers",
        )
