"""What the host does beside a running program: bounds its disk and threads, and sees it end.

The program's process sends one message before it gives up its rights: descriptors of its working
directory and, where the kernel can, of the filter that asks before a thread begins. The kernel
adds to the message which process sent it.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import selectors
import socket
import struct
from collections.abc import Iterator
from functools import partial
from typing import Literal

from latentmas.sandbox.disk import is_too_large
from latentmas.sandbox.limits import Limits
from latentmas.sandbox.threads import answer, thread_count

__all__ = ["Stop", "Supervisor", "supervise"]

Stop = Literal["time", "output", "folder", "threads"]
"""Which limit ended a program from outside."""

_INFO_BYTES = 65536
_FIRST_PROCESS = re.compile(rb'"child-pid": (\d+)\D')
_CREDENTIALS = struct.Struct("=iII")  # process, user, group
_MOST_DESCRIPTORS = 2  # in the message
_PATIENCE_MS = 10_000  # for the last process of a sandbox to be gone


class Supervisor:
    """Looks after one program; made by `supervise`."""

    def __init__(self, limits: Limits, folder: int | None, own: contextlib.ExitStack) -> None:
        """Open the channels.

        Args:
            limits: what the program may use.
            folder: descriptor of its working directory on the host; None when that is a file
                system inside a sandbox, which the kernel bounds in bytes.
            own: closes the descriptors in the end.
        """
        self._limits, self._folder, self._own = limits, folder, own
        self._receiver, sender = map(own.enter_context, socket.socketpair())
        self.control = sender.fileno()
        """Descriptor on which the program's process sends its message."""
        self._info, self.info = os.pipe()
        """`info`: descriptor on which bubblewrap says which process it has started."""
        own.callback(os.close, self._info)
        own.callback(os.close, self.info)
        self._said = b""
        self._listener: int | None = None
        self._files: int | None = None
        """Descriptor of the working directory inside a sandbox."""
        self._program: int | None = None
        """Process that runs the program."""
        self._first: int | None = None
        """Descriptor of the first process of a sandbox, with which all others end."""

    def attach(self, selector: selectors.BaseSelector) -> None:
        """Have what arrives handled by whoever waits with the selector."""
        if hasattr(socket, "SO_PASSCRED"):
            self._receiver.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        receive, note = partial(self._receive, selector), partial(self._note_first, selector)
        selector.register(self._receiver.fileno(), selectors.EVENT_READ, receive)
        selector.register(self._info, selectors.EVENT_READ, note)

    def problem(self, pid: int) -> Stop | None:
        """Which bound is passed now, of those that the kernel does not keep.

        Args:
            pid: the command, a child of this process that is not collected yet.
        """
        if self._listener is None and self._program is not None:
            with contextlib.suppress(OSError):
                if thread_count(self._program) > self._limits.threads:
                    return "threads"
        if self._folder is not None:
            return "folder" if is_too_large(self._folder, pid, self._limits) else None
        if self._files is not None:
            space = os.fstatvfs(self._files)
            return "folder" if space.f_files - space.f_ffree > self._limits.folder_entries else None
        return None

    @property
    def asked(self) -> bool:
        """Whether the kernel asks before each thread begins; else they are counted now and then."""
        return self._listener is not None

    def wait(self) -> None:
        """Return when no process of the sandbox is left, after the command itself has ended."""
        if self._first is not None:
            poll = select.poll()
            poll.register(self._first, select.POLLIN)
            poll.poll(_PATIENCE_MS)

    def _receive(self, selector: selectors.BaseSelector, fd: int) -> None:
        """Take the one message of the program's process, which runs nothing foreign yet."""
        selector.unregister(fd)
        room = socket.CMSG_SPACE(4 * _MOST_DESCRIPTORS) + socket.CMSG_SPACE(_CREDENTIALS.size)
        _, found, _, _ = self._receiver.recvmsg(1, room, socket.MSG_CMSG_CLOEXEC)
        descriptors: list[int] = []
        for _, kind, data in found:
            if kind == socket.SCM_RIGHTS:
                descriptors += (number for (number,) in struct.iter_unpack("=i", data))
            else:
                self._program = _CREDENTIALS.unpack(data)[0]
        for number in descriptors:
            self._own.callback(os.close, number)
        if descriptors:
            self._files = descriptors[0]
        if len(descriptors) > 1:
            self._listener = descriptors[1]
            decide = partial(self._decide, selector)
            selector.register(self._listener, selectors.EVENT_READ, decide)

    def _decide(self, selector: selectors.BaseSelector, fd: int) -> None:
        if not answer(fd, self._limits.threads):
            selector.unregister(fd)

    def _note_first(self, selector: selectors.BaseSelector, fd: int) -> None:
        """Get hold of the process that bubblewrap names, in JSON that comes in pieces."""
        self._said += os.read(fd, _INFO_BYTES)
        found = _FIRST_PROCESS.search(self._said)
        if found is None:
            return
        selector.unregister(fd)
        with contextlib.suppress(OSError):  # it has ended, or the kernel is older than 5.3
            self._first = os.pidfd_open(int(found[1]))
            self._own.callback(os.close, self._first)


@contextlib.contextmanager
def supervise(limits: Limits, folder: int | None) -> Iterator[Supervisor]:
    """A supervisor for one program, closed afterwards; see `Supervisor` for the arguments."""
    with contextlib.ExitStack() as own:
        yield Supervisor(limits, folder, own)
