"""Replies of a judge that are kept: in memory, and in a JSONL file."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from latentmas.atomic import check_writable, write_error
from latentmas.redact import redact

__all__ = ["ReplyLog", "digest_of"]


class ReplyLog:
    """Replies by what was asked. May be used from several threads."""

    def __init__(self, path: Path | None) -> None:
        """Read the replies of earlier runs.

        Args:
            path: JSONL file that is read and appended to; None keeps replies in memory only.

        Raises:
            WriteError: the file cannot be written.
        """
        self._path, self._lock = path, threading.Lock()
        self._replies = dict[str, str]()
        if path is None:
            return
        check_writable(path)
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                self._take(line)

    def get(self, digest: str) -> str | None:
        """The reply to a request that was made before."""
        with self._lock:
            return self._replies.get(digest)

    def add(self, digest: str, facts: dict[str, Any], *, keep: bool) -> None:
        """Append a reply to the file.

        Args:
            digest: digest of the request, as `digest_of` returns it.
            facts: what to write: `reply` and more.
            keep: whether the reply is returned for the same request later.

        Raises:
            WriteError: the file cannot be written.
        """
        line = json.dumps({"digest": digest, "kept": keep, **_redacted(facts)}) + "\n"
        with self._lock:
            if keep:
                self._replies[digest] = facts["reply"]
            if self._path is None:
                return
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                with self._path.open("a+b") as file:
                    # A line that a crash has cut off must not swallow this one.
                    torn = file.tell() > 0 and (file.seek(-1, 2), file.read(1))[1] != b"\n"
                    file.write(b"\n" * torn + line.encode())
            except OSError as error:
                raise write_error(self._path, error) from error

    def _take(self, line: str) -> None:
        """Remember a line of the file; one that was cut off by a crash is left out."""
        try:
            facts = json.loads(line)
            if facts["kept"] is True:
                self._replies[str(facts["digest"])] = str(facts["reply"])
        except (ValueError, KeyError, TypeError):
            return


def digest_of(parts: Sequence[Any]) -> str:
    """Digest of a request."""
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()


def _redacted(value: Any) -> Any:
    """The same data with secrets removed from its texts."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {name: _redacted(one) for name, one in value.items()}
    return [_redacted(one) for one in value] if isinstance(value, list) else value
