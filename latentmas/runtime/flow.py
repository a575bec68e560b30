"""Many samples through one interpreter: batches of like length, and final texts that overlap.

Rows end at different times. When enough of them have, the next samples go through their latent
phase, and write beside those that are still at it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from latentmas.plan import Decode
from latentmas.runtime.interpreter import Interpreter, Walk

__all__ = ["by_length", "flow"]


def by_length(samples: Sequence[Mapping[str, Any]], inputs: Sequence[str]) -> list[int]:
    """Numbers of the samples, longest first, so that batches have little padding.

    The longest come first because memory then runs out at once or never.
    """
    sizes = [sum(len(str(sample[name])) for name in inputs) for sample in samples]
    return sorted(range(len(samples)), key=lambda i: -sizes[i])


def flow(
    interpreter: Interpreter,
    samples: Sequence[Mapping[str, Any]],
    *,
    batch_size: int,
    refill: float,
    put_away: Callable[[Walk], None],
) -> list[Walk]:
    """Walk all samples.

    Args:
        interpreter: walks.
        samples: mappings of sample fields.
        batch_size: most samples that are under way at once.
        refill: the share of them that must have ended before others join; 1 waits for all.
        put_away: called with each walk that is done.

    Returns:
        A walk for each batch, in the order in which they began.
    """
    plan = interpreter.plan
    last = plan.steps[-1]
    assert isinstance(last, Decode)
    pool = interpreter.pool(last)
    order = list(range(len(samples)))
    if len(samples) > batch_size:
        order = by_length(samples, plan.graph.inputs)
    waiting, walks, open_ = deque(order), list[Walk](), list[Walk]()
    try:
        while waiting or open_:
            room = batch_size - -(-pool.live // interpreter.num_return_sequences)
            free = room == batch_size or (pool.joins() and room >= max(1, refill * batch_size))
            if waiting and free:
                rows = [waiting.popleft() for _ in range(min(room, len(waiting)))]
                batch = [samples[i] for i in rows]
                walk = interpreter.walk(batch, pool=pool, rows=rows, batch=len(walks))
                walks.append(walk)
                open_.append(walk)
            else:
                with interpreter.blame(len(plan.steps) - 1):
                    interpreter.executor.prepare(interpreter.system.backbone_of(last.agent))
                    pool.advance()
            for walk in [walk for walk in open_ if walk.draft is None or walk.draft.done]:
                if walk.draft is not None:
                    interpreter.complete(walk)
                put_away(walk)
                open_.remove(walk)
    finally:
        pool.close()
    return walks
