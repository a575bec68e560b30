"""The sweep of the task with rounds, whose trained teams other sections use too."""

from __future__ import annotations

from collections.abc import Sequence

from latentmas.errors import LatentMASError
from latentmas.io import load_link_weights, read_history
from latentmas.runtime import System
from latentmas.studies.paper.tasks import asking_correct, asking_graph, asking_rows, training_of
from latentmas.studies.paper.work import Work
from latentmas.studies.sweeps import Sweep, sweep

__all__ = ["asking_sweep", "asking_trained"]


def asking_sweep(
    work: Work, train_rounds: Sequence[int], seeds: Sequence[int], *, progress: bool
) -> Sweep:
    """The team of two agents, trained through some numbers of rounds and run at others.

    Args:
        work: The work of the section `rounds`.
        train_rounds: Numbers of rounds of the training.
        seeds: Random seeds.
        progress: Whether to print a line on stderr when a cell ends.
    """
    sizes = work.sizes
    told, rows = asking_rows(sizes)
    return sweep(
        asking_graph(work, sizes),
        rows,
        folder=work.folder,
        over={"train_rounds": list(train_rounds)},
        train_rows=told,
        run_rounds=sizes.run_rounds,
        seeds=list(seeds),
        training=training_of(sizes) | {"answer_field": "reply"},
        device=work.device,
        resume=True,
        progress=progress,
        grader=asking_correct,
    )


def asking_trained(work: Work, train_rounds: int, seed: int) -> System:
    """A trained team of the section `rounds`; it is trained here if it has not been.

    Args:
        work: The work of any section.
        train_rounds: Number of rounds of its training.
        seed: Random seed.
    """
    own = work.beside("rounds")
    found = asking_sweep(own, [train_rounds], [seed], progress=False)  # read, if it is finished
    for failed in found.failed:
        raise LatentMASError(f"the team could not be trained: {failed}")
    team = found.cells[0].folder / "training" / "team"
    system = own.load(asking_graph(own, own.sizes).compile(), seed)
    load_link_weights(system, team)
    system.history = read_history(team)
    return system
