"""A stand-in of the hub's HTTP API in memory, for tests with the real client.

Repositories have commits and branches; files can be listed, read in ranges, and committed, those of
weights through the LFS protocol. It can break connections, refuse files, and ask for a token.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

COMMIT = "c0ffee" + "0" * 34
Files = dict[str, bytes]


class Repository:
    """Commits by id, and the commit of each branch."""

    def __init__(self, files: Files | None = None, private: bool = False) -> None:
        first = COMMIT if files is not None else hashlib.sha1(b"empty").hexdigest()
        self.commits: dict[str, Files] = {first: dict(files or {})}
        self.branches = {"main": first}
        self.messages: list[str] = []
        self.private = private

    @classmethod
    def of_folder(cls, folder: Path) -> Repository:
        """One commit with the files of a folder."""
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        return cls({path.relative_to(folder).as_posix(): path.read_bytes() for path in files})

    def find(self, revision: str) -> str | None:
        """The commit of a branch or of an id."""
        commit = self.branches.get(revision, revision)
        return commit if commit in self.commits else None

    def commit(self, branch: str, files: Files, message: str) -> str:
        """Put a new commit on a branch."""
        parent = self.branches[branch]
        id = hashlib.sha1(f"{parent} {message} {len(self.commits)}".encode()).hexdigest()
        self.commits[id], self.branches[branch] = files, id
        self.messages.append(message)
        return id


class Hub(ThreadingHTTPServer):
    """Repositories by name; `requests` lists what clients asked for, `headers` with what."""

    daemon_threads = True

    def __init__(self, repositories: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories = {
            name: Repository.of_folder(folder) for name, folder in repositories.items()
        }
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.large: dict[str, bytes] = {}
        self.break_after: dict[str, int] = {}
        """`repository/file` → bytes after which its next download breaks off."""
        self.refuse: set[str] = set()
        """`repository/file` of those whose next download is answered with an error."""
        self.token: str | None = None
        """What writers, and readers of private repositories, must bring."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def downloaded(self) -> set[str]:
        """`repository/file` of everything whose content was fetched."""
        return {r.removeprefix("GET ") for r in self.requests if r.startswith("GET ")}

    def files(self, name: str, revision: str = "main") -> Files:
        """What a repository holds."""
        repository = self.repositories[name]
        return repository.commits[repository.find(revision) or ""]

    def handle_error(self, request: Any, address: Any) -> None:
        """A client that has gone is no error of ours."""


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
        self._route()

    def do_GET(self) -> None:
        self._route()

    def do_POST(self) -> None:
        self._route()

    def do_PUT(self) -> None:
        self._route()

    def _route(self) -> None:
        path = urlsplit(self.path).path.strip("/")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for pattern, method, writes in _ROUTES:
            found = re.fullmatch(pattern, path)
            if found and (self.command in ("POST", "PUT")) == writes:
                if writes and method is not _Handler._large and not self._allowed():
                    return self._fail(401, "")  # an upload's address is a secret itself
                return method(self, *map(unquote, found.groups()))
        return self._fail(404, "EntryNotFound")

    def _allowed(self) -> bool:
        wanted = self.server.token
        return wanted is None or self.headers.get("Authorization") == f"Bearer {wanted}"

    # --- reading -------------------------------------------------------------------------------

    def _at(self, name: str, revision: str) -> tuple[Repository, str, Files] | None:
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and not self._allowed()):
            self._fail(404 if repository is None else 401, "RepoNotFound")
            return None
        commit = repository.find(revision)
        if commit is None:
            self._fail(404, "RevisionNotFound")
            return None
        return repository, commit, repository.commits[commit]

    def _info(self, name: str, revision: str = "main") -> None:
        found = self._at(name, revision)
        if found is None:
            return
        repository, commit, files = found
        siblings = [
            {"rfilename": path, "size": len(data), "blobId": _git_id(data)}
            for path, data in files.items()
        ]
        body = {"id": name, "modelId": name, "sha": commit, "siblings": siblings}
        body |= {"private": repository.private, "tags": [], "downloads": 0, "likes": 0}
        self._json(body)

    def _tree(self, name: str, revision: str) -> None:
        found = self._at(name, revision)
        if found is not None:
            self._json([_entry(path, data) for path, data in found[2].items()])

    def _refs(self, name: str) -> None:
        branches = self.server.repositories[name].branches
        listed = [
            {"name": branch, "ref": f"refs/heads/{branch}", "targetCommit": commit}
            for branch, commit in branches.items()
        ]
        self._json({"branches": listed, "tags": [], "converts": []})

    def _file(self, name: str, revision: str, path: str) -> None:
        found = self._at(name, revision)
        if found is None:
            return None
        _, commit, files = found
        if path not in files:
            return self._fail(404, "EntryNotFound", {"X-Repo-Commit": commit})
        if self.command == "GET":
            self.server.requests.append(f"GET {name}/{path}")
            if f"{name}/{path}" in self.server.refuse:
                self.server.refuse.remove(f"{name}/{path}")
                return self._fail(400, "")
        headers = {"ETag": f'"{_etag(path, files[path])}"', "X-Repo-Commit": commit}
        return self._bytes(f"{name}/{path}", files[path], headers)

    def _bytes(self, path: str, data: bytes, headers: dict[str, str]) -> None:
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        code = 200
        if asked and self.command == "GET":
            start = int(asked.group(1))
            self.server.ranges.append(f"{path} {start}")
            code, headers["Content-Range"] = 206, f"bytes {start}-{len(data) - 1}/{len(data)}"
            data = data[start:]
        cut = self.server.break_after.pop(path, None) if self.command == "GET" else None
        self._send(code, data, headers, send=cut)

    # --- writing -------------------------------------------------------------------------------

    def _create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        body = {"url": f"{self.server.url}/{name}", "name": name, "id": name}
        if name in self.server.repositories:
            return self._send(409, json.dumps(body).encode(), {})
        self.server.repositories[name] = Repository(private=asked.get("visibility") == "private")
        return self._json(body)

    def _branch(self, name: str, branch: str) -> None:
        repository = self.server.repositories[name]
        if branch in repository.branches:
            return self._fail(409, "")
        repository.branches[branch] = repository.branches["main"]
        return self._json({})

    def _check_yaml(self) -> None:
        self._json({"errors": [], "warnings": []})

    def _preupload(self, name: str, revision: str) -> None:
        found = self._at(name, revision)
        if found is None:
            return
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                "shouldIgnore": False,
                "oid": _etag(file["path"], found[2][file["path"]])
                if file["path"] in found[2]
                else None,
            }
            for file in json.loads(self.body)["files"]
        ]
        self._json({"files": files})

    def _batch(self, name: str) -> None:
        objects = [
            {
                "oid": asked["oid"],
                "size": asked["size"],
                "actions": {"upload": {"href": f"{self.server.url}/large/{asked['oid']}"}},
            }
            for asked in json.loads(self.body)["objects"]
        ]
        self._json({"transfer": "basic", "objects": objects})

    def _large(self, id: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != id:
            return self._fail(400, "")
        self.server.large[id] = self.body
        return self._json({})

    def _commit(self, name: str, branch: str) -> None:
        repository = self.server.repositories[name]
        lines = [json.loads(line) for line in self.body.splitlines()]
        files = dict(repository.commits[repository.branches[branch]])
        message = ""
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                message = value["summary"]
            elif line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.large[value["oid"]]
            else:
                del files[value["path"]]
        id = repository.commit(branch, files, message)
        url = f"{self.server.url}/{name}/commit/{id}"
        self._json({"commitUrl": url, "commitOid": id, "success": True})

    # --- answering -----------------------------------------------------------------------------

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _fail(self, code: int, error: str, headers: Mapping[str, str] | None = None) -> None:
        self._send(code, b"{}", {"X-Error-Code": error, **(headers or {})})

    def _send(
        self, code: int, body: bytes, headers: Mapping[str, str], send: int | None = None
    ) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(body[:send])
        if send is not None:
            self.wfile.flush()
            self.close_connection = True


_NAME = r"([^/]+/[^/]+)"
_ROUTES: list[tuple[str, Callable[..., None], bool]] = [
    (rf"api/models/{_NAME}", _Handler._info, False),
    (rf"api/models/{_NAME}/revision/([^/]+)", _Handler._info, False),
    (rf"api/models/{_NAME}/tree/([^/]+)", _Handler._tree, False),
    (rf"api/models/{_NAME}/refs", _Handler._refs, False),
    (rf"{_NAME}/resolve/([^/]+)/(.+)", _Handler._file, False),
    (r"api/repos/create", _Handler._create, True),
    (rf"api/models/{_NAME}/branch/([^/]+)", _Handler._branch, True),
    (r"api/validate-yaml", _Handler._check_yaml, True),
    (rf"api/models/{_NAME}/preupload/([^/]+)", _Handler._preupload, True),
    (rf"{_NAME}\.git/info/lfs/objects/batch", _Handler._batch, True),
    (r"large/([0-9a-f]+)", _Handler._large, True),
    (rf"api/models/{_NAME}/commit/([^/]+)", _Handler._commit, True),
]


def _git_id(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _etag(path: str, data: bytes) -> str:
    large = path.endswith(".safetensors")
    return hashlib.sha256(data).hexdigest() if large else _git_id(data)


def _entry(path: str, data: bytes) -> dict[str, Any]:
    entry = {"type": "file", "path": path, "size": len(data), "oid": _git_id(data)}
    if path.endswith(".safetensors"):
        sha = hashlib.sha256(data).hexdigest()
        entry["lfs"] = {"oid": sha, "size": len(data), "pointerSize": 130}
    return entry
