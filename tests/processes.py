"""Processes forked from one that has imported everything, so that a start costs no import.

That one starts with the first job and ends with the tests.
"""

from __future__ import annotations

import atexit
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
from functools import cache
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
LIMIT = 600.0
"""Seconds after which the processes of a job are ended; only a bound on a hang."""


def run_processes(count: int, work: str, *args: Any) -> list[Any]:
    """Run a function of `tests.parallel_work` on each rank of a job.

    Args:
        count: Number of processes.
        work: Name of the function, with its module and a colon before it if it is elsewhere.
        args: Its arguments, plain data.

    Returns:
        What it returned, by rank.
    """
    with tempfile.TemporaryDirectory() as folder:
        place = work if ":" in work else f"tests.parallel_work:{work}"
        codes = _ask(count, place, folder, args)
        assert not any(codes), Path(folder, "said").read_text()[-6000:]
        return [json.loads(Path(folder, str(rank)).read_text()) for rank in range(count)]


def run_alone(work: str, *args: Any) -> tuple[int, str]:
    """Run a function in one process, which may be killed.

    Args:
        work: Module and name of the function, joined by a colon.
        args: Its arguments, plain data.

    Returns:
        Exit code (the signal's number below zero, if a signal ended it), and what it printed.
    """
    with tempfile.TemporaryDirectory() as folder:
        (code,) = _ask(1, work, folder, args)
        return code, Path(folder, "said").read_text()


def _ask(count: int, work: str, folder: str, args: Any) -> list[int]:
    server = _server()
    job = {"count": count, "work": work, "folder": folder, "args": args}
    server.stdin.write(json.dumps(job) + "\n")
    server.stdin.flush()
    line = server.stdout.readline()
    assert line, "the process from which jobs are forked has ended"
    return json.loads(line)


@cache
def _server() -> Any:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.processes"],
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )

    def end() -> None:
        server.stdin.close()
        server.wait()

    atexit.register(end)
    return server


def command(*words: str) -> None:
    """The command line with these words; work for `run_alone`."""
    from latentmas.cli import main as run_command

    sys.argv = ["latentmas", *words]
    run_command()


# --- in the server --------------------------------------------------------------------------------


def main() -> None:
    """Import, then fork the processes of one job after another."""
    for module in ("tests.parallel_work", "transformers.trainer", "latentmas.cli.app"):
        importlib.import_module(module)
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no reply
    for line in sys.stdin:
        print(json.dumps(_job(**json.loads(line))), file=replies, flush=True)


def _job(count: int, work: str, folder: str, args: list[Any]) -> list[int]:
    """Exit codes of a job; all of it ends when one process fails, as under torchrun."""
    listener = socket.create_server(("127.0.0.1", 0))
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(listener.getsockname()[1])}
    # This process holds the port and the store, as the agent of torchrun does.
    place |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": str(count)}
    children = []
    for rank in range(count):
        own = place | {"RANK": str(rank), "LOCAL_RANK": str(rank)} if count > 1 else {}
        children.append(_fork(str(rank), own, work, folder, args))
    store = _store(listener) if count > 1 else None
    deadline, codes = time.monotonic() + LIMIT, dict[int, int]()
    while len(codes) < len(children):
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            codes[child] = os.waitstatus_to_exitcode(status)
        failed = any(codes.values()) or time.monotonic() > deadline
        for other in children if failed else ():
            if other not in codes:
                os.kill(other, signal.SIGKILL)
        time.sleep(0.01)
    del store
    listener.close()
    return [codes[child] for child in children]


def _store(listener: socket.socket) -> Any:
    from torch.distributed import TCPStore

    port = listener.getsockname()[1]
    handle = listener.detach()
    return TCPStore(
        "127.0.0.1", port, is_master=True, wait_for_workers=False, master_listen_fd=handle
    )


def _fork(rank: str, place: dict[str, str], work: str, folder: str, args: list[Any]) -> int:
    child = os.fork()
    if child:
        return child
    said = os.open(Path(folder, "said"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    os.environ |= place | {"TMPDIR": folder}
    tempfile.tempdir = folder  # which is removed at the end, though nothing else is run there
    try:
        module, _, name = work.partition(":")
        found = getattr(importlib.import_module(module), name)(*args)
        Path(folder, rank).write_text(json.dumps(found))
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
