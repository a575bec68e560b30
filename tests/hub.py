"""A stand-in of the hub's HTTP API over local folders, for tests with the real client."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34


class Hub(ThreadingHTTPServer):
    """Repositories by name; `requests` lists what clients asked for."""

    daemon_threads = True

    def __init__(self, repositories: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = dict(repositories)
        self.requests: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def downloaded(self) -> set[str]:
        """`repository/file` of everything whose content was fetched."""
        return {r.removeprefix("GET ") for r in self.requests if r.startswith("GET ")}


@contextmanager
def hub(repositories: Mapping[str, Path]) -> Iterator[Hub]:
    """Serve while the block runs."""
    server = Hub(repositories)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        parts = path.split("/")
        if parts[:2] == ["api", "models"] and len(parts) >= 4:
            return self._info("/".join(parts[2:4]), parts[4:], with_body)
        if len(parts) > 4 and parts[2] == "resolve":
            return self._file("/".join(parts[:2]), "/".join(parts[4:]), with_body)
        return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, with_body)

    def _info(self, repository: str, rest: list[str], with_body: bool) -> None:
        folder = self.server.repositories.get(repository)
        if folder is None:
            return self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)
        if rest and rest[0] != "revision":
            return self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"}, with_body)
        files = [f for f in sorted(folder.rglob("*")) if f.is_file()]
        siblings = [
            {
                "rfilename": f.relative_to(folder).as_posix(),
                "size": f.stat().st_size,
                "blobId": hashlib.sha1(f.read_bytes()).hexdigest(),
            }
            for f in files
        ]
        body = {"id": repository, "modelId": repository, "sha": COMMIT, "siblings": siblings}
        body |= {"private": False, "tags": [], "downloads": 0, "likes": 0}
        return self._send(200, json.dumps(body).encode(), {}, with_body)

    def _file(self, repository: str, name: str, with_body: bool) -> None:
        path = self.server.repositories.get(repository, Path("/nonexistent")) / name
        if not path.is_file():
            headers = {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": COMMIT}
            return self._send(404, b"", headers, with_body)
        if with_body:
            self.server.requests.append(f"GET {repository}/{name}")
        data = path.read_bytes()
        etag = hashlib.sha1(data).hexdigest()
        return self._send(200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": COMMIT}, with_body)

    def _send(self, code: int, body: bytes, headers: Mapping[str, str], with_body: bool) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)
