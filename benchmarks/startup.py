"""How long imports and light commands take in fresh processes, beside an import of pydantic.

    python benchmarks/startup.py [--tiny] [--json]

Processes take turns; times are medians of whole processes. CPU seconds and the ratios of them to
`from pydantic import BaseModel` hardly depend on what else runs on the machine; wall seconds do. It
ends with 1 when a ratio exceeds its bound, or torch or transformers is imported.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from typing import Any, NamedTuple

from latentmas.environment import hardware, versions

COMMAND = """
import sys
sys.argv = ["latentmas", *{words!r}]
from latentmas.cli import main
try:
    main()
except SystemExit:
    pass
sys.stdout.flush()
"""
IMPORTED = """
import sys
sys.stderr.write("\\n" + " ".join({"torch", "transformers"} & set(sys.modules)))
"""
BASE = "from pydantic import BaseModel"
PROGRAMS: dict[str, tuple[str, float | None]] = {
    "python -c pass": ("pass", None),
    BASE: (BASE, None),
    "import latentmas": ("import latentmas", 2.0),
    "from latentmas import Graph, templates": ("from latentmas import Graph, templates", None),
    **{
        f"latentmas {' '.join(words)}": (COMMAND.format(words=words), most)
        for words, most in [
            (["--help"], 4.0),
            (["run", "--help"], None),
            (["templates"], None),
            (["plan", "sequential_light"], None),
        ]
    },
}
"""Name → program, and the largest ratio of its CPU seconds to those of pydantic's import."""


class Run(NamedTuple):
    """One process."""

    cpu_s: float
    wall_s: float
    heavy: str
    """The heavy packages that it imported."""


def run(code: str) -> Run:
    """Run a program in a fresh process."""
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code + IMPORTED], capture_output=True, text=True, check=True
    )
    wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return Run(cpu, wall, done.stderr.rsplit("\n", 1)[-1])


def measure(times: int) -> list[dict[str, Any]]:
    """All programs, in turns; a first turn, which may compile modules, is not counted."""
    runs: dict[str, list[Run]] = {name: [] for name in PROGRAMS}
    for turn in range(times + 1):
        for name, (code, _) in PROGRAMS.items():
            found = run(code)
            runs[name] += [found] if turn else []
    base = statistics.median(own.cpu_s for own in runs[BASE])
    return [_row(name, runs[name], base) for name in PROGRAMS]


def _row(name: str, runs: list[Run], base: float) -> dict[str, Any]:
    cpu, most = statistics.median(own.cpu_s for own in runs), PROGRAMS[name][1]
    return {
        "what": name,
        "cpu_s": round(cpu, 3),
        "wall_s": round(statistics.median(own.wall_s for own in runs), 3),
        "ratio": round(cpu / base, 2),
        "bound": most,
        "imports": runs[0].heavy,
        "fine": (most is None or cpu <= most * base) and not runs[0].heavy,
    }


def main() -> int:
    """Measure and print; 1 when a bound is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="three runs of each, not eleven")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    rows = measure(3 if given.tiny else 11)
    if given.json:
        machine = {"hardware": hardware(), "versions": versions()}
        print(json.dumps({**machine, "rows": rows}, indent=1))
    else:
        print(f"{'what':<42}{'CPU':>9}{'wall':>9}{'ratio':>7}{'bound':>7}  imports")
        for row in rows:
            bound = "–" if row["bound"] is None else f"{row['bound']:g}"
            seconds = f"{row['cpu_s']:>7.3f} s{row['wall_s']:>7.3f} s"
            print(f"{row['what']:<42}{seconds}{row['ratio']:>7.2f}{bound:>7}  {row['imports']}")
    return 0 if all(row["fine"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
