"""Several processes of one job, forked from one that has imported everything."""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def run_processes(count: int, work: str, *args: Any, timeout: float = 100) -> list[Any]:
    """Run a function of `tests.parallel_work` on each rank of a job.

    Args:
        count: Number of processes.
        work: Name of the function.
        args: Its arguments, plain data.
        timeout: Seconds after which all processes are ended.

    Returns:
        What it returned, by rank.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = [sys.executable, "-m", "tests.processes", str(count), work, folder, str(timeout)]
        environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [*words, json.dumps(args)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=timeout + 30,
        )
        assert done.returncode == 0, done.stderr[-6000:]
        return [json.loads(Path(folder, str(rank)).read_text()) for rank in range(count)]


def main(count: str, work: str, folder: str, timeout: str, args: str) -> int:
    """Import, fork and wait; all end when one fails, as under torchrun."""
    function = getattr(importlib.import_module("tests.parallel_work"), work)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": count}
    children = [_fork(rank, function, folder, json.loads(args)) for rank in range(int(count))]
    deadline, codes = time.monotonic() + float(timeout), dict[int, int]()
    while len(codes) < len(children):
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            codes[child] = os.waitstatus_to_exitcode(status)
        failed = any(codes.values()) or time.monotonic() > deadline
        for other in children if failed else ():
            if other not in codes:
                os.kill(other, signal.SIGKILL)
        time.sleep(0.02)
    return int(any(codes.values()))


def _fork(rank: int, function: Any, folder: str, args: list[Any]) -> int:
    child = os.fork()
    if child:
        return child
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}
    try:
        Path(folder, str(rank)).write_text(json.dumps(function(*args)))
        sys.stdout.flush()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
