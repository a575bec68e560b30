"""A local stand-in for an OpenAI-compatible endpoint."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, Any] | tuple[int, Any, dict[str, str]]
"""Status, body (a text, or an object for JSON) and headers."""
PART = re.compile(
    r"BEGIN {name} (\w+)\n(.*?)\nEND {name} \1\n".replace("{name}", "CANDIDATE"), re.S
)


def chat(text: str) -> Answer:
    """A chat completion with this text."""
    message = {"role": "assistant", "content": text}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return 200, {"id": "1", "created": 0, "model": "m", "choices": [choice], "usage": None}


def candidate(request: dict[str, Any]) -> str:
    """The text that a judge is asked to grade."""
    return PART.search(request["messages"][-1]["content"])[2]


def literal(request: dict[str, Any]) -> Answer:
    """A judge that accepts a candidate that is one of the listed answers."""
    prompt = request["messages"][-1]["content"]
    right = f"\n- {candidate(request)}\n" in prompt
    return chat(f"Compared.\nGRADE: {'C' if right else 'I'}")


class Server:
    """What the endpoint was asked, and how it answers."""

    def __init__(self) -> None:
        self.requests, self.keys = list[dict[str, Any]](), list[str]()
        self.reply: Callable[[dict[str, Any]], Answer] = literal
        self.queue = list[Answer]()
        """Answers that are given first, in this order."""
        self.url = ""


@contextmanager
def serving() -> Iterator[Server]:
    """A server on a free port of this machine."""
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            state.requests.append(request)
            state.keys.append(self.headers.get("Authorization", ""))
            status, body, *more = state.queue.pop(0) if state.queue else state.reply(request)
            content = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            for name, value in (more[0] if more else {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        state.url = f"http://127.0.0.1:{server.server_port}/v1"
        yield state
        server.shutdown()
        thread.join()
