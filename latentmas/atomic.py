"""Files written whole or not at all, and errors that say why one cannot be written."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from latentmas.errors import DataError

__all__ = [
    "WriteError",
    "check_writable",
    "replacing_file",
    "write_atomically",
    "write_error",
    "write_text_atomically",
]

_FIXES = {
    errno.EACCES: "choose a folder that you may write to, or change its permissions",
    errno.EPERM: "choose a folder that you may write to, or change its permissions",
    errno.EROFS: "the file system is read-only; choose another folder",
    errno.ENOSPC: "free some space, or choose another disk",
    errno.EDQUOT: "your quota is used up: free some space, or choose another disk",
    errno.EFBIG: "the limit on file sizes is too low; raise it (ulimit -f)",
    errno.EISDIR: "it is a folder; name a file",
    errno.ENOTDIR: "part of the path is a file; choose another path",
    errno.EEXIST: "a file is in the way; choose another path",
}


class WriteError(DataError, OSError):
    """A file or folder cannot be written; `errno`, `strerror` and `filename` are as in OSError."""

    def __str__(self) -> str:  # OSError would print the number and the file's name once more
        return str(self.args[0])


def write_text_atomically(path: Path, text: str) -> Path:
    """Write a text file so that a crash leaves the old one or the new one, never half."""
    return write_atomically(path, text)


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write a file so that a crash or a full disk leaves the old one or the new one, never half.

    Raises:
        WriteError: it cannot be written; the error names `path`.
    """
    with replacing_file(path) as temporary:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Give an empty file beside `path` to write to, and put it in the place of `path` at the end.

    When the block raises, the old file stays and the new one is removed. A device or a pipe is
    given itself: it would be lost if another file took its place.

    Raises:
        WriteError: the file cannot be written; the error names `path`.
    """
    try:
        if _is_special(path):
            yield path
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        try:
            yield temporary
            temporary.chmod(0o644)
            _sync(temporary)
            temporary.replace(path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
    except WriteError:
        raise
    except OSError as error:
        raise write_error(path, error) from error


def _is_special(path: Path) -> bool:
    """Whether a path names a device or a pipe.

    Links count in `/dev` alone (`/dev/stdout` is one): elsewhere a link may lie in a folder that
    somebody else made, and is replaced, never followed.
    """
    if path.parent.resolve() == Path("/dev"):
        return path.exists()
    return not path.is_symlink() and path.exists() and not (path.is_file() or path.is_dir())


def _sync(path: Path) -> None:
    """Wait until the disk has the file: some file systems report a full disk only now."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def check_writable(path: str | Path) -> None:
    """Check that a file can be written, before the work whose result it will hold.

    The nearest existing folder takes a nameless file for a moment; nothing stays behind.

    Args:
        path: of the file; its folder may have to be made.

    Raises:
        WriteError: it cannot be written; the error names `path`.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if _is_special(path):
            if not os.access(path, os.W_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
            return
        folder = next((above for above in path.parents if above.exists()), path.parent)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise write_error(path, error) from error


def write_error(path: str | Path, error: OSError, what: str = "cannot write") -> WriteError:
    """The error to raise for a file or folder that cannot be written.

    Args:
        path: of the file or folder.
        error: what the operating system said.
        what: begins the message, such as `"the team cannot be written to"`.
    """
    reason = error.strerror or str(error) or repr(error)
    fix = _FIXES.get(error.errno or 0, "choose another path")
    found = WriteError(f"{what} {str(path)!r}: {reason}; {fix}")
    found.errno, found.strerror, found.filename = error.errno, reason, str(path)
    return found
