"""Program that compares mathematical texts: a line of JSON in, a line of JSON out.

`workers.py` starts it by its path, so that it imports math-verify and nothing of this package (nor
torch). A request is `{"gold": …, "text": …, "limit": seconds}`, and the reply `{"same": bool}`; a
request without `text` asks whether the correct answer can be read: `{"readable": bool}`. What takes
too much memory is answered with `{"problem": …}`, and any other failure with `{"failed": …}`.
"""

import contextlib
import json
import os
import select
import signal
import sys

MEMORY = 2**30
"""Bytes of address space."""
IDLE = 5.0
"""Seconds between looks at whether the parent still lives."""
GRACE = 2.0
"""Seconds past the time limit after which the kernel ends this process, if the parent has not."""


def bound() -> None:
    """Limit memory, and write no core file."""
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def alarm(seconds: float) -> None:
    """Let the kernel end this process after a time, even within a call that holds Python's lock."""
    if hasattr(signal, "setitimer"):
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, seconds)


def next_line(parent: int) -> str:
    """The next request; empty when the parent has gone, even if others hold the pipe open."""
    while os.name == "posix" and not select.select([sys.stdin], [], [], IDLE)[0]:
        if os.getppid() != parent:
            return ""
    return sys.stdin.readline()


def answer(request: dict) -> dict:
    """The reply to a request."""
    from math_verify import parse, verify

    def read(text: str) -> list:
        return parse(f"${text}$", parsing_timeout=None)

    gold = read(request["gold"])
    if "text" not in request:
        return {"readable": any(not isinstance(one, str) for one in gold)}
    return {"same": bool(verify(gold, read(request["text"]), timeout_seconds=None))}


def main() -> None:
    """Answer requests until the input ends."""
    parent = os.getppid()
    bound()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal reaches the parent as well
    import logging

    import math_verify  # noqa: F401 - it takes a third of a second, before the first request

    logging.disable(logging.CRITICAL)
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints must not be read as a reply
    print(json.dumps({"ready": True}), file=replies, flush=True)
    while line := next_line(parent):
        request = json.loads(line)
        alarm(request["limit"] + GRACE)
        try:
            reply = answer(request)
        except (MemoryError, RecursionError):
            reply = {"problem": "memory limit"}
        except Exception as error:
            reply = {"failed": f"comparison failed: {type(error).__name__}"}
        alarm(0)
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
