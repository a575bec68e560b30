"""Run a command under watch: feed it, read it with a cap, and end it with all it started."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from latentmas.sandbox.supervise import Stop, Supervisor

__all__ = ["Finished", "watch"]

_TICK = 0.02  # seconds between two looks at the process and its directory
_CHUNK = 65536  # bytes


@dataclass
class Finished:
    """What a command left behind."""

    stdout: bytes = b""
    stderr: bytes = b""
    code: int = 0
    """Exit code; 128 plus the signal's number when a signal ended it."""
    stopped: Stop | None = None
    asked: bool = False
    """Whether the kernel asked the host before each thread."""


@dataclass
class _Pipes:
    """The three pipes of a process, none of which can block this one."""

    process: subprocess.Popen[bytes]
    payload: memoryview
    cap: int
    """Bytes of one stream after which reading ends."""
    read: dict[int, bytearray] = field(default_factory=dict)
    selector: selectors.DefaultSelector = field(default_factory=selectors.DefaultSelector)

    def open(self) -> None:
        """Begin to look at all three."""
        for stream in self._streams():
            fd = stream.fileno()
            os.set_blocking(fd, False)
            if stream.writable():
                self.selector.register(fd, selectors.EVENT_WRITE, self._give)
            else:
                self.selector.register(fd, selectors.EVENT_READ, self._take)
                self.read[fd] = bytearray()

    def turn(self, seconds: float) -> bool:
        """Wait at most so long and move what can be moved; False once a cap is passed."""
        if not self.selector.get_map():
            time.sleep(seconds)
        for key, _ in self.selector.select(seconds):
            key.data(key.fd)
        return all(len(data) <= self.cap for data in self.read.values())

    def close(self) -> None:
        """Close what is still open."""
        self.selector.close()
        for stream in self._streams():
            with contextlib.suppress(OSError):
                stream.close()

    def _streams(self) -> list[IO[bytes]]:
        streams = (self.process.stdout, self.process.stderr, self.process.stdin)
        return [stream for stream in streams if stream is not None]

    def _take(self, fd: int) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(fd, _CHUNK)
            self.read[fd] += data
            if not data:
                self.selector.unregister(fd)

    def _give(self, fd: int) -> None:
        try:
            self.payload = self.payload[os.write(fd, self.payload[:_CHUNK]) :]
        except BlockingIOError:
            return
        except OSError:  # the process reads no more
            self.payload = memoryview(b"")
        if not self.payload and self.process.stdin is not None:
            self.selector.unregister(fd)
            self.process.stdin.close()


def watch(
    command: Sequence[str],
    payload: bytes,
    *,
    environment: Mapping[str, str],
    folder: Path,
    inherit: Sequence[int] = (),
    seconds: float,
    output_bytes: int,
    supervisor: Supervisor,
) -> Finished:
    """Run a command to its end, or to the first limit that it passes.

    Args:
        command: program and arguments; no shell.
        payload: bytes of its standard input.
        environment: all of its environment.
        folder: its working directory.
        inherit: file descriptors that it keeps.
        seconds: wall-clock time.
        output_bytes: bytes of one stream; reading ends once more have come.
        supervisor: hears what the command reports, and is asked every few hundredths of a second
            whether a bound is passed.

    Raises:
        OSError: when the command cannot be started.
    """
    deadline = time.monotonic() + seconds
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
        cwd=folder,
        env=dict(environment),
        pass_fds=tuple(inherit),
        start_new_session=True,
    )
    pipes = _Pipes(process, memoryview(payload), output_bytes)
    try:
        pipes.open()
        supervisor.attach(pipes.selector)
        stopped = _follow(process, pipes, deadline, supervisor)
    finally:
        _end(process)
        supervisor.wait()
        pipes.close()
    stdout, stderr = (bytes(data) for data in pipes.read.values())
    code = process.returncode
    code = code if code >= 0 else 128 - code
    return Finished(stdout, stderr, code, stopped, supervisor.asked)


def _follow(
    process: subprocess.Popen[bytes],
    pipes: _Pipes,
    deadline: float,
    supervisor: Supervisor,
) -> Stop | None:
    """Move data until the process ends or passes a limit."""
    looked = 0.0
    while True:
        ended = _has_ended(process)
        while ended and pipes.selector.select(0):  # what it said last
            if not pipes.turn(0):
                return "output"
        now = time.monotonic()
        if ended:
            return None
        if now >= deadline:
            return "time"
        if now >= looked + _TICK:
            looked = now
            problem = supervisor.problem(process.pid)
            if problem is not None:
                return problem
        if not pipes.turn(min(_TICK, deadline - now)):
            return "output"


def _has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Look without collecting: until then nobody else can get the process's id."""
    if not hasattr(os, "waitid"):
        return process.poll() is not None
    look = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, look) is not None


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and its group, and collect it."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
