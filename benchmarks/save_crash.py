"""Kill a save at random points, and see that the team before it or after it can be loaded, whole.

    python benchmarks/save_crash.py [--tiny] [--json]

Each trial saves one team over another in a process that is killed with SIGKILL: at a random one of
its operations on files (counted with an audit hook), or after a random time. Then the folder is
loaded: graph, prompts, weights and training records must all be those of one of the two teams, and
other files in the folder must be there. At last the save is repeated, which must succeed.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import latentmas as lm
from latentmas.runtime import TrainingRecord
from latentmas.testing import tiny_backbone

EVENTS = ("open", "os.", "shutil.", "tempfile.")
"""Prefixes of the audit events that count as operations on files."""


def teams() -> tuple[lm.System, lm.System]:
    """Two teams on the same backbones, unlike in agents, prompts, rounds, weights and records."""
    small, wide = tiny_backbone("llama", 16), tiny_backbone("llama", 32, seed=1)
    how: dict[str, Any] = {"latent_steps": 2, "link": "recursive", "inner": "recursive"}
    old = lm.templates.sequential(planner=small, critic=wide, solver=small, **how)
    new = lm.templates.distillation(expert=wide, learner=small, rounds=2, **how)
    a = old.compile().load(seed=1)
    b = lm.System.load(new.compile(), reuse=a, seed=2)
    a.history = [TrainingRecord("inner", {"seed": 1}, [{"loss": 1.0}], {"steps": 1})] * 3
    b.history = [TrainingRecord("outer", {"seed": 2}, [{"loss": 2.0}], {"steps": 2})]
    return a, b


def in_child(work: Any, *, at_event: int | None = None, after: float | None = None) -> int:
    """Do the work in a process that may be killed; the number of its operations on files.

    Args:
        work: called without arguments.
        at_event: operation at which it is killed.
        after: seconds after which it is killed.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        seen = 0

        def hook(event: str, _: Any) -> None:
            nonlocal seen
            if event.startswith(EVENTS):
                seen += 1
                if seen == at_event:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        os.write(writer, b"!")
        work()
        os.write(writer, b"%d" % seen)
        os._exit(0)
    os.close(writer)
    os.read(reader, 1)
    if after is not None:
        time.sleep(after)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reader) as file:
        told = file.read()
    os.waitpid(child, 0)
    return int(told or 0)


def same(a: lm.System, b: lm.System) -> bool:
    """Whether two teams are equal, bit for bit."""
    ours, theirs = a.link_state(), b.link_state()
    return (
        a.plan == b.plan
        and ours.keys() == theirs.keys()
        and all(torch.equal(ours[name], theirs[name]) for name in ours)
        and a.history == b.history
    )


def trial(number: int, folder: Path, systems: tuple[lm.System, lm.System], size: Any) -> str:
    """Which team is there after a save that was killed: `"old"`, `"new"` or what is wrong."""
    old, new = systems
    events, seconds = size
    shutil.rmtree(folder, ignore_errors=True)
    old.save_pretrained(folder)
    (folder / "notes.txt").write_text("mine")
    draw = random.Random(number)
    timed = number % 3 == 2
    how: dict[str, Any] = (
        {"after": draw.uniform(0, seconds)} if timed else {"at_event": draw.randint(1, events)}
    )
    in_child(lambda: new.save_pretrained(folder), **how)
    try:
        found = lm.System.from_pretrained(folder, reuse=old)
    except lm.LatentMASError as error:
        return f"broken: {error}"
    which = "old" if same(found, old) else "new" if same(found, new) else "broken: a mixture"
    new.save_pretrained(folder)
    if not same(lm.System.from_pretrained(folder, reuse=old), new):
        return "broken: the save after it"
    left = [path.name for path in folder.iterdir() if path.name.startswith(".")]
    if left or (folder / "notes.txt").read_text() != "mine":
        return f"broken: left over {left}"
    return which


def main() -> int:
    """Run the trials; 1 when one of them leaves a broken folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="5 trials")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    torch.set_num_threads(1)
    systems = teams()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "team"
        systems[0].save_pretrained(folder)
        began = time.perf_counter()
        events = in_child(lambda: systems[1].save_pretrained(folder))
        size = events, time.perf_counter() - began
        outcomes = [trial(n, folder, systems, size) for n in range(5 if given.tiny else 50)]
    counts = dict(sorted(collections.Counter(outcomes).items()))
    broken = sum(count for name, count in counts.items() if name.startswith("broken"))
    if given.json:
        rows = [{"trials": len(outcomes), "operations": events, "outcomes": counts}]
        print(json.dumps({"rows": rows}, indent=2))
    else:
        print(f"{len(outcomes)} saves killed, of {events} operations on files each")
        print("\n".join(f"{name:<8}{count:>4}" for name, count in counts.items()))
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
