"""Atomic file writes, and errors that explain why a file cannot be written."""

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
    "append_whole",
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

    def __str__(self) -> str:  # OSError would add the error number and repeat the file name
        return str(self.args[0])


def write_text_atomically(path: Path, text: str) -> Path:
    """Write a text file atomically: a crash leaves either the old or the new content."""
    return write_atomically(path, text)


def write_atomically(path: Path, content: bytes | str) -> Path:
    """Write a file atomically: a crash or a full disk leaves either the old or the new content.

    Raises:
        WriteError: The file cannot be written; the error names `path`.
    """
    with replacing_file(path) as temporary:
        temporary.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


@contextmanager
def replacing_file(path: Path) -> Iterator[Path]:
    """Yield an empty file next to `path` to write to; it replaces `path` at the end.

    If the block raises, the old file is kept and the new one removed. A device or a pipe is
    yielded itself, since replacing it by a file would destroy it.

    Raises:
        WriteError: The file cannot be written; the error names `path`.
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

    Links are followed only in `/dev` (`/dev/stdout` is one): elsewhere, a link may be in a folder
    that another user controls, so it is replaced, never followed.
    """
    if path.parent.resolve() == Path("/dev"):
        return path.exists()
    return not path.is_symlink() and path.exists() and not (path.is_file() or path.is_dir())


def _sync(path: Path) -> None:
    """Flush the file to disk; some file systems report a full disk only at this point."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def check_writable(path: str | Path) -> None:
    """Check that a file can be written before the work that produces its content.

    Briefly creates a temporary file in the nearest existing folder; nothing is left behind.

    Args:
        path: Path of the file; its folder need not exist.

    Raises:
        WriteError: The file cannot be written; the error names `path`.
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


def append_whole(file: int, data: bytes) -> None:
    """Append data to an open file, all of it or nothing.

    Args:
        file: File descriptor, opened with `O_APPEND`.
        data: Whole lines.

    Raises:
        OSError: The data cannot be written; the file is as before.
    """
    end = os.fstat(file).st_size
    try:
        if os.write(file, data) < len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError:
        with suppress(OSError):  # a pipe or a device cannot be cut
            os.ftruncate(file, end)
        raise


def write_error(path: str | Path, error: OSError, what: str = "cannot write") -> WriteError:
    """Build the error for a file or folder that cannot be written.

    Args:
        path: Path of the file or folder.
        error: Error from the operating system.
        what: Start of the message, such as `"the team cannot be written to"`.
    """
    reason = error.strerror or str(error) or repr(error)
    fix = _FIXES.get(error.errno or 0, "choose another path")
    found = WriteError(f"{what} {str(path)!r}: {reason}; {fix}")
    found.errno, found.strerror, found.filename = error.errno, reason, str(path)
    return found
