"""How long `import latentmas` and `latentmas --help` take, in fresh processes.

    python benchmarks/startup.py [--tiny] [--json]

Each runs several times. The time of an import is taken inside the process and leaves the start of
Python out; the others are whole processes, beside one that does nothing. It ends with 1 when an
import takes 0.15 s or more, a help text 0.5 s or more, or torch is imported; the least time is held
to these bounds, since what else runs on a machine only adds to it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from typing import Any

IMPORT = """
import sys, time
began = time.perf_counter()
import latentmas
print(time.perf_counter() - began, "torch" in sys.modules)
"""
COMMAND = """
import sys
sys.argv = ["latentmas", *{words!r}]
from latentmas.cli import main
try:
    main()
except SystemExit:
    pass
sys.stdout.flush()
sys.stderr.write(str("torch" in sys.modules))
"""
COMMANDS: dict[str, tuple[list[str] | None, float | None]] = {
    "python -c pass": (None, None),
    "latentmas --help": (["--help"], 0.5),
    "latentmas run --help": (["run", "--help"], 0.5),
    "latentmas templates": (["templates"], 0.5),
}
"""Name → words after `latentmas`, and most seconds."""


def run(code: str) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Seconds of a process, and what it wrote."""
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return time.perf_counter() - began, done


def importing(times: int) -> dict[str, Any]:
    """The import alone."""
    told = [run(IMPORT)[1].stdout.split() for _ in range(times)]
    return _row("import latentmas", [float(seconds) for seconds, _ in told], 0.15, told[0][1])


def command(name: str, times: int) -> dict[str, Any]:
    """A whole process."""
    words, most = COMMANDS[name]
    found = [run("pass" if words is None else COMMAND.format(words=words)) for _ in range(times)]
    return _row(name, [seconds for seconds, _ in found], most, found[0][1].stderr)


def _row(name: str, seconds: list[float], most: float | None, torch: str) -> dict[str, Any]:
    heavy = torch.strip() == "True"
    fine = (most is None or min(seconds) < most) and not heavy
    return {
        "what": name,
        "median_s": round(statistics.median(seconds), 3),
        "least_s": round(min(seconds), 3),
        "bound_s": most,
        "imports_torch": heavy,
        "fine": fine,
    }


def main() -> int:
    """Measure and print; 1 when a bound is broken."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="three runs of each, not eleven")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    times = 3 if given.tiny else 11
    rows = [importing(times), *(command(name, times) for name in COMMANDS)]
    if given.json:
        print(json.dumps({"rows": rows}, indent=2))
    else:
        print(f"{'what':<24}{'median':>9}{'least':>9}{'bound':>9}  torch")
        for row in rows:
            bound = "–" if row["bound_s"] is None else f"{row['bound_s']:.2f} s"
            times_of = f"{row['median_s']:>7.3f} s{row['least_s']:>7.3f} s"
            print(
                f"{row['what']:<24}{times_of}{bound:>9}  {'yes' if row['imports_torch'] else 'no'}"
            )
    return 0 if all(row["fine"] for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
