"""Give every loader what a stranger might send: who refuses it, how soon, at what memory.

    python benchmarks/hostile.py [--tiny] [--json] [--only WORD]

Each input is made, then loaded in a process of its own (a fork, so that only the loading counts).
Exit code 1 when one is accepted, raises something other than a LatentMASError, takes more than
64 MiB or 10 s, or leaves a file behind.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import torch  # noqa: E402
from transformers.utils import logging  # noqa: E402

from latentmas.errors import GraphError, LatentMASError  # noqa: E402
from tests.hostile import CASES, Base, Case  # noqa: E402

MOST_MIB = 64.0
MOST_SECONDS = 10.0
PATIENCE = 60.0


def memory(key: str) -> float:
    """A line of /proc/self/status, in MiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


def said(error: BaseException, folder: Path) -> str:
    """What an error says, on one line, without the scratch folder's name."""
    text = str(error.problems[0]) if isinstance(error, GraphError) else str(error) or repr(error)
    return " ".join(text.replace(f"{folder}/", "").split())


def attempt(base: Base, case: Case, path: Path) -> dict[str, Any]:
    """Load in this process; what came of it."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    here, began = memory("VmRSS"), time.perf_counter()
    try:
        base.load(case.loader, path)
        error, line = "accepted", ""
    except LatentMASError as found:
        error, line = type(found).__name__, said(found, path.parent)
    except BaseException as found:
        error, line = f"unhandled {type(found).__name__}", said(found, path.parent)
        traceback.print_exc()
    seconds = time.perf_counter() - began
    return {"error": error, "says": line, "mib": memory("VmHWM") - here, "seconds": seconds}


def in_a_fork(base: Base, case: Case, path: Path) -> dict[str, Any]:
    """The same in a child, which is killed when it takes too long."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            space = int(memory("VmSize") * 2**20) + 8 * 2**30
            resource.setrlimit(resource.RLIMIT_AS, (space, space))
            os.write(writing, json.dumps(attempt(base, case, path)).encode())
        finally:
            os._exit(0)
    os.close(writing)
    ready, _, _ = select.select([reading], [], [], PATIENCE)
    if not ready:
        os.kill(child, signal.SIGKILL)
    with os.fdopen(reading, "rb") as pipe:
        raw = pipe.read()
    os.waitpid(child, 0)
    died = {"error": "killed" if not ready else "died", "says": "", "mib": 0.0, "seconds": PATIENCE}
    return json.loads(raw) if raw else died


def row(base: Base, case: Case, folder: Path) -> dict[str, Any]:
    """One line of the table."""
    path = base.copy(case.loader, folder)
    case.spoil(path)
    before = {item for item in folder.rglob("*") if "resumed" not in item.parts}
    found = in_a_fork(base, case, path)
    left = [i.name for i in folder.rglob("*") if i not in before and "resumed" not in i.parts]
    return {"loader": case.loader, "input": case.name, **found, "left": left}


def refused(found: dict[str, Any]) -> bool:
    """Whether a row is as it should be."""
    known = not found["error"].startswith(("accepted", "unhandled", "killed", "died"))
    return (
        known
        and not found["left"]
        and found["mib"] <= MOST_MIB
        and found["seconds"] <= MOST_SECONDS
    )


def main() -> int:
    """Print the table; 1 when an input is not refused as it should be."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="every tenth input")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--only", default="", help="inputs whose loader or name holds this")
    given = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable_progress_bar()
    chosen = [case for case in CASES if given.only in f"{case.loader}: {case.name}"]
    chosen = chosen[::10] if given.tiny else chosen
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        base = Base(Path(scratch) / "base")
        base.root.mkdir()
        for loader in {case.loader for case in chosen} - {"prompt pack of a release"}:
            sound = Path(scratch) / "sound" / loader
            sound.mkdir(parents=True)
            base.load(loader, base.copy(loader, sound))
        for number, case in enumerate(chosen):
            folder = Path(scratch) / f"case{number}"
            folder.mkdir()
            os.chdir(folder)
            rows.append(row(base, case, folder))
            if not given.json:
                print(line_of(rows[-1]), flush=True)
        os.chdir(ROOT)
    bad = [found for found in rows if not refused(found)]
    if given.json:
        print(json.dumps({"rows": rows, "refused": len(rows) - len(bad)}, indent=2))
    else:
        most = max(found["mib"] for found in rows), max(found["seconds"] for found in rows)
        print(f"\n{len(rows)} inputs, {len(rows) - len(bad)} refused as they should be")
        print(f"at most {most[0]:.1f} MiB (allowed {MOST_MIB:g}) and {most[1]:.2f} s")
        for found in bad:
            print(f"NOT: {line_of(found)} left {found['left']}")
    return 1 if bad else 0


def line_of(found: dict[str, Any]) -> str:
    """A row as text."""
    cost = f"{found['mib']:6.1f} MiB {found['seconds'] * 1000:7.0f} ms"
    what = f"{found['loader']:<24} {found['input']:<56.56}"
    return f"{what} {found['error']:<17} {cost}  {found['says']:.120}"


if __name__ == "__main__":
    sys.exit(main())
