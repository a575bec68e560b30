"""Evaluate on Ray and under torchrun while workers are killed, and compare with one process.

    python benchmarks/ray_workers.py [--tiny] [--json FILE]

A tiny team answers 2,000 rows with sampling: in one process; on two Ray workers, of which three are
killed with SIGKILL at random moments; and in two processes of torchrun, of which one is killed, and
which are started again with `--resume`. Every row must be there once, with the key and the tokens
of the run in one process. It needs the extra `ray`; without it, only torchrun is measured.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import latentmas as lm
from latentmas.environment import hardware, versions
from latentmas.testing import tiny_backbone

ROWS = 2000
OPTIONS = ["--do-sample", "--temperature", "2.0", "--batch-size", "8", "--max-new-tokens", "4"]
RANKS = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m"]
SEED = 7


def make_team(folder: Path, rows: int) -> None:
    """A tiny team with random links, and the rows that it answers."""
    small = tiny_backbone("qwen3", 16, folder=folder / "small", initializer_range=0.12)
    wide = tiny_backbone("llama", 32, folder=folder / "wide", initializer_range=0.12)
    graph = lm.templates.sequential(
        planner=small, critic=wide, solver=small, rounds=1, latent_steps=3, link="recursive"
    )
    graph.compile().load().save_pretrained(folder / "team")
    data = [{"question": f"{n} + {n % 13}?", "answer": str(n + n % 13)} for n in range(rows)]
    text = "".join(json.dumps(row) + "\n" for row in data)
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")


def start(folder: Path, output: str, *more: str, launcher: list[str]) -> subprocess.Popen[bytes]:
    """Start an evaluation; its messages go to a file."""
    command = [*launcher, "latentmas", "eval", str(folder / "team")]
    command += ["--data", str(folder / "rows.jsonl"), "-o", str(folder / output), *OPTIONS, *more]
    return subprocess.Popen(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=(folder / f"{output}.log").open("ab"),
    )


def descendants(root: int) -> dict[int, str]:
    """Command line of each process below another, by its number."""
    parents, names = dict[int, int](), dict[int, str]()
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                parents[int(path.name)] = int(
                    path.joinpath("stat").read_text().split(")")[1].split()[1]
                )
                command = path.joinpath("cmdline").read_bytes().replace(b"\0", b" ")
                names[int(path.name)] = command.decode(errors="replace")
            except OSError:  # it has just ended
                continue
    found, level = dict[int, str](), [root]
    while level:
        level = [pid for pid, parent in parents.items() if parent in level]
        found |= {pid: names[pid] for pid in level if pid in names}
    return found


def lines_of(folder: Path, output: str) -> int:
    """Number of rows on disk, parts included."""
    return sum(
        path.read_bytes().count(b"\n")
        for path in folder.glob(f"{output}*")
        if path.suffix == ".jsonl" or ".part-" in path.name
    )


def kill_at(
    process: subprocess.Popen[bytes], folder: Path, output: str, moments: list[int], word: str
) -> list[dict[str, Any]]:
    """Kill a random worker at each of the moments, which are numbers of rows on disk."""
    kills, draw = list[dict[str, Any]](), random.Random(SEED)
    for moment in moments:
        while process.poll() is None and lines_of(folder, output) < moment:
            time.sleep(0.02)
        alive = sorted(pid for pid, name in descendants(process.pid).items() if word in name)
        if process.poll() is not None or not alive:
            break
        os.kill(draw.choice(alive), signal.SIGKILL)
        kills.append({"rows_on_disk": lines_of(folder, output), "workers_alive": len(alive)})
    return kills


def compare(folder: Path, output: str) -> dict[str, int]:
    """How a results file differs from that of one process."""

    def read(name: str) -> list[dict[str, Any]]:
        text = (folder / name).read_text(encoding="utf-8")
        return [json.loads(line) for line in text.split("\n") if line]

    def answers(row: dict[str, Any]) -> Any:
        return row["key"], row["answers"], row["prompt"], row["new_tokens"], row["error"]

    wanted = {row["row"]: answers(row) for row in read("local.jsonl")}
    found = read(output)
    counts = Counter(row["row"] for row in found)
    return {
        "rows": len(found),
        "missing": len(set(wanted) - set(counts)),
        "twice": sum(count > 1 for count in counts.values()),
        "different": sum(answers(row) != wanted.get(row["row"]) for row in found),
    }


def on_ray(folder: Path, rows: int) -> dict[str, Any]:
    """Two Ray workers, three of which are killed."""
    draw, begun = random.Random(SEED), time.perf_counter()
    moments = sorted(draw.sample(range(rows // 20, rows * 4 // 5), 3))
    process = start(
        folder,
        "ray.jsonl",
        *("--engine", "ray", "--workers", "2"),
        launcher=[sys.executable, "-m"],
    )
    kills = kill_at(process, folder, "ray.jsonl", moments, "ray::MapWorker")
    code = process.wait()
    log = (folder / "ray.jsonl.log").read_text(encoding="utf-8", errors="replace")
    return {
        "exit_code": code,
        "seconds": round(time.perf_counter() - begun, 1),
        "kills": kills,
        "tasks_run_again": log.count("have run again"),
        **compare(folder, "ray.jsonl"),
    }


def on_torchrun(folder: Path, rows: int) -> dict[str, Any]:
    """Two processes, of which one is killed; then the same command with --resume."""
    begun = time.perf_counter()
    moment = random.Random(SEED).randrange(rows // 10, rows * 4 // 5)
    process = start(folder, "torchrun.jsonl", launcher=RANKS)
    kills = kill_at(process, folder, "torchrun.jsonl", [moment], "latentmas eval")
    first = process.wait()
    left = lines_of(folder, "torchrun.jsonl")
    second = start(folder, "torchrun.jsonl", "--resume", launcher=RANKS).wait()
    return {
        "exit_codes": [first, second],
        "seconds": round(time.perf_counter() - begun, 1),
        "kills": kills,
        "rows_before_resume": left,
        "parts_left": len(list(folder.glob("torchrun.jsonl.part-*"))),
        **compare(folder, "torchrun.jsonl"),
    }


def main() -> int:
    """Run the three evaluations; 1 if a row differs, is missing, or is there twice."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="300 rows, for a quick check")
    parser.add_argument("--json", type=Path, metavar="FILE", help="file to write the results to")
    asked = parser.parse_args()
    rows = 300 if asked.tiny else ROWS
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_team(folder, rows)
        begun = time.perf_counter()
        code = start(folder, "local.jsonl", launcher=[sys.executable, "-m"]).wait()
        found: dict[str, Any] = {
            "hardware": hardware(),
            "versions": versions(),
            "rows": rows,
            "local": {"exit_code": code, "seconds": round(time.perf_counter() - begun, 1)},
        }
        if importlib.util.find_spec("ray") is not None:
            found["ray"] = on_ray(folder, rows)
        found["torchrun"] = on_torchrun(folder, rows)
    text = json.dumps(found, indent=1)
    print(text)
    if asked.json is not None:
        asked.json.write_text(text + "\n", encoding="utf-8")
    runs = [found[engine] for engine in ("ray", "torchrun") if engine in found]
    wrong = [run for run in runs if run["missing"] or run["twice"] or run["different"]]
    return int(bool(wrong) or any(run["rows"] != rows for run in runs))


if __name__ == "__main__":
    sys.exit(main())
