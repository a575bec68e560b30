"""Processes that answer one request at a time, and are replaced if they take too long.

A worker is a program that is started by its path: it needs no importable main module, inherits no
threads, locks or open files, and sees few environment variables.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentmas.errors import LatentMASError

__all__ = ["Workers"]

_START = 120.0
"""Seconds that a worker may take to start; a busy machine is slow to import."""
_LONGEST_REPLY = 2**16
_KEPT = ("PATH", "HOME", "LANG", "LC_ALL", "PYTHONPATH", "PYTHONHOME", "SYSTEMROOT", "TMPDIR")
"""Environment variables that a worker sees: no tokens among them."""


class Workers:
    """A small pool of processes; may be used from several threads, and again after `close`."""

    def __init__(self, program: Path, *, count: int, time_limit: float) -> None:
        """Describe the pool; processes are started when they are first needed.

        Args:
            program: file that reads requests and writes replies, one JSON object per line.
            count: maximum number of processes.
            time_limit: seconds per request.
        """
        self._program, self.time_limit = program, time_limit
        self._places = threading.BoundedSemaphore(count)
        self._idle, self._all = list[_Worker](), set[_Worker]()
        self._lock, self._owner = threading.Lock(), os.getpid()
        # It runs at the interpreter's exit too, and must not refer to this object.
        weakref.finalize(self, _end_all, self._all, self._owner)

    def ask(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Send a request to a free worker and return its reply.

        Returns:
            The reply; `{"problem": …}` if the worker took too long or ended, in which case it is
            replaced.

        Raises:
            LatentMASError: a worker cannot be started.
        """
        with self._places:
            worker = self._take()
            reply = worker.ask(request, self.time_limit)
            with self._lock:
                keep = "problem" not in reply and worker in self._all
                if keep:
                    self._idle.append(worker)
                self._all -= set() if keep else {worker}
            if not keep:
                worker.end()
            return reply

    def close(self) -> None:
        """End all processes, including those that are answering."""
        with self._lock:
            ended = list(self._all) if self._owner == os.getpid() else []
            self._all.clear()
            self._idle.clear()
        for worker in ended:
            worker.end()

    def _take(self) -> _Worker:
        with self._lock:
            if self._owner != os.getpid():  # a fork: the processes belong to the parent
                self._idle.clear()
                self._all.clear()
                self._owner = os.getpid()
                weakref.finalize(self, _end_all, self._all, self._owner)
            if self._idle:
                return self._idle.pop()
        worker = _Worker(self._program)
        with self._lock:
            self._all.add(worker)
        return worker


class _Worker:
    """One process."""

    def __init__(self, program: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", str(program)],  # -P: its folder has a module named `math`
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _KEPT if name in os.environ},
        )
        if self._exchange("", _START) != {"ready": True}:
            self.end()
            raise LatentMASError(
                f"a process for comparing answers did not start ({sys.executable} {program.name}); "
                "check that this interpreter can import math_verify, and that memory is free"
            )

    def ask(self, request: Mapping[str, Any], limit: float) -> dict[str, Any]:
        """The worker's reply, or a problem."""
        return self._exchange(json.dumps({**request, "limit": limit}) + "\n", limit)

    def end(self) -> None:
        """Kill the process and wait for its end, so that no zombie is left."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):  # unsent bytes of a request
                    pipe.close()

    def _exchange(self, line: str, limit: float) -> dict[str, Any]:
        """Send a line, if any, and read one; the process is killed at the time limit."""
        process, late = self._process, threading.Event()

        def expire() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(limit, expire)
        timer.daemon = True
        timer.start()
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(line.encode())
            process.stdin.flush()
            reply = json.loads(process.stdout.readline(_LONGEST_REPLY))
        except (OSError, ValueError):  # it has ended; closed by `close` in another thread as well
            return {"problem": "time limit" if late.is_set() else "comparison failed"}
        finally:
            timer.cancel()
        return reply if isinstance(reply, dict) else {"problem": "comparison failed"}


def _end_all(workers: set[_Worker], owner: int) -> None:
    """End workers, unless they belong to the process that this one was forked from."""
    if owner == os.getpid():
        for worker in list(workers):
            worker.end()
