"""`.pt` files, checked opcode by opcode before anything is unpickled.

`torch.load(weights_only=True)` does not run code from the file but creates any object it describes:
sparse tensors with indices out of bounds, gigabytes of zeros, keys that take very long to hash. A
file of tensors needs a dozen opcodes and four functions. These are interpreted here with stand-ins
for the objects they would create; everything else is rejected.
"""

from __future__ import annotations

import io
import math
import pickletools
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from latentmas.errors import WeightsError
from latentmas.safe_data.files import check_plain_file

__all__ = ["RANDOM_STATES", "Archive", "StoredTensor", "scan_archive"]

STORAGES = {
    "DoubleStorage": 8,
    "FloatStorage": 4,
    "HalfStorage": 2,
    "BFloat16Storage": 2,
    "LongStorage": 8,
    "IntStorage": 4,
    "ShortStorage": 2,
    "CharStorage": 1,
    "ByteStorage": 1,
    "BoolStorage": 1,
}
"""Storage types → bytes per element."""
MOST_OPCODES = 500_000
MOST_ENTRIES = 10_000
RANDOM_STATES = frozenset(
    {
        *("_codecs encode", "numpy dtype", "numpy ndarray"),
        *("numpy._core.multiarray _reconstruct", "numpy.core.multiarray _reconstruct"),
        *("numpy._core.multiarray scalar", "numpy.core.multiarray scalar"),
    }
)
"""Additional names needed by the states of random number generators."""
_ODD = {
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_sparse_csr_tensor": "a sparse tensor",
    "_rebuild_nested_tensor": "a nested tensor",
    "_rebuild_meta_tensor_no_storage": "a meta tensor",
    "_rebuild_qtensor": "a quantized tensor",
}


class StoredTensor(NamedTuple):
    """A dense tensor that unpickling would create."""

    storage: str
    """Storage type, such as `FloatStorage`."""
    shape: tuple[int, ...]


class Archive(NamedTuple):
    """A `.pt` file that passed the check."""

    content: Any
    """The object that unpickling would create, with `StoredTensor` in place of tensors."""
    records: Mapping[str, bytes]

    def repacked(self) -> io.BytesIO:
        """A new file with only the checked parts, since two readers may parse a zip differently."""
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for name, data in self.records.items():
                archive.writestr(f"archive/{name}", data)
        file.seek(0)
        return file


class _Name(NamedTuple):
    name: str


class _Storage(NamedTuple):
    kind: str
    numbers: int


class _Other(NamedTuple):
    """An object that only a name in `also` creates."""

    name: str


def scan_archive(path: Path, most: int, also: frozenset[str] = frozenset()) -> Archive:
    """Check a `.pt` file.

    Args:
        path: Path of the file.
        most: Maximum number of bytes, packed and unpacked.
        also: Additional names (`"module name"`) that it may call.

    Raises:
        WeightsError: It cannot be read safely (LM502, with the reason) or is too large (LM503).
        FileNotFoundError: The file does not exist.
    """
    check_plain_file(path, 2**40)
    try:
        records = _records(path, most)
        walk = _Walk(records, also)
        return Archive(walk.run(), records)
    except WeightsError:
        raise
    except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError) as error:
        raise WeightsError(f"LM502 {path} is not a valid archive of tensors: {error}") from error
    except (ValueError, RuntimeError, LookupError, TypeError, AttributeError) as error:
        reason = (str(error).strip() or repr(error)).splitlines()[0]
        raise WeightsError(f"LM502 {path} cannot be read safely: {reason:.200}") from error


def _records(path: Path, most: int) -> dict[str, bytes]:
    """Name below the archive's single folder → content."""
    _check_size(path, path.stat().st_size, most)
    if not zipfile.is_zipfile(path):
        raise ValueError(
            "it is not a zip archive as written by torch.save; save it again with torch"
        )
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        _check_size(path, sum(entry.file_size for entry in entries), most)
        names = [entry.filename.partition("/")[2] for entry in entries]
        if len(entries) > MOST_ENTRIES or len(set(names)) < len(names):
            raise ValueError("its archive has too many entries, or a duplicate name")
        records = {
            name: archive.read(entry) for name, entry in zip(names, entries, strict=True) if name
        }
    if "data.pkl" not in records or "constants.pkl" in records:
        raise ValueError("its archive was not written by torch.save")
    return records


def _check_size(path: Path, size: int, most: int) -> None:
    if size > most:
        raise WeightsError(f"LM503 {path} unpacks to {size:,} bytes, more than {most:,}")


class _Walk:
    """Interpreter of a pickle's opcodes, with stand-ins in place of objects."""

    def __init__(self, records: Mapping[str, bytes], also: frozenset[str]) -> None:
        self.records, self.also = records, also
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        """Interpret all opcodes and return the result."""
        data = self.records["data.pkl"]
        for count, (opcode, argument, _) in enumerate(pickletools.genops(data)):
            if count > MOST_OPCODES:
                raise ValueError(f"it has more than {MOST_OPCODES:,} opcodes")
            if opcode.name == "STOP":
                return self.stack.pop()
            if opcode.name in _PUSHED:
                self.stack.append(_PUSHED[opcode.name](argument))
            elif opcode.name in _STEPS:
                _STEPS[opcode.name](self, argument)
            else:
                raise ValueError(f"its opcode {opcode.name} is not needed for tensors")
        raise ValueError("it has no end")

    def name(self, argument: str) -> None:
        kind = argument.removeprefix("torch ")
        if argument not in _MAKERS and kind not in STORAGES and argument not in self.also:
            short = argument.rpartition(" ")[2]
            odd = f" is for {_ODD[short]}; a dense one is needed" if short in _ODD else ""
            raise ValueError(f"it calls {argument.replace(' ', '.')!r:.80}, which{odd or _UNKNOWN}")
        self.stack.append(_Name(argument))

    def mark(self, _: Any) -> None:
        self.marks.append(self.stack)
        self.stack = []

    def marked(self) -> list[Any]:
        items, self.stack = self.stack, self.marks.pop()
        return items

    def group(self, count: int | None) -> None:
        items = self.marked() if count is None else [self.stack.pop() for _ in range(count)][::-1]
        self.stack.append(tuple(items))

    def put(self, place: int) -> None:
        self.memo[place] = self.stack[-1]

    def get(self, place: int) -> None:
        self.stack.append(self.memo[place])

    def store(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if not isinstance(target, dict) or len(items) % 2:
            raise ValueError("it stores an item in a value that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if not isinstance(key, str | int):
                raise ValueError(f"it has a {type(key).__name__} as a key")
            target[key] = value

    def extend(self, items: list[Any]) -> None:
        if not isinstance(self.stack[-1], list):
            raise ValueError("it appends to a value that is not a list")
        self.stack[-1].extend(items)

    def load_storage(self, _: Any) -> None:
        tag, kind, key, _, numbers = self.stack.pop()
        if tag != "storage" or not isinstance(kind, _Name) or not isinstance(key, str):
            raise ValueError("it refers to something other than stored numbers")
        name = kind.name.removeprefix("torch ")
        there = len(self.records[f"data/{key}"])
        if type(numbers) is not int or numbers * STORAGES[name] != there:
            raise ValueError(f"storage {key!r:.40} has {there:,} bytes, not as many as it says")
        self.stack.append(_Storage(name, numbers))

    def reduce(self, _: Any) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, _Name) or not isinstance(arguments, tuple):
            raise ValueError("it calls a value that is not a function")
        maker = _MAKERS.get(function.name)
        self.stack.append(maker(*arguments) if maker else _Other(function.name))

    def build(self, _: Any) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        sound = isinstance(state, dict) and set(state) <= {"_metadata"}
        if not isinstance(target, _Other) and not (isinstance(target, dict) and sound):
            raise ValueError("it sets the state of a value that has none")


_UNKNOWN = " is not needed for tensors"


def _tensor(
    storage: Any, offset: Any, shape: Any, stride: Any, grad: Any = False, *rest: Any
) -> StoredTensor:
    counts = (offset, *shape, *stride)
    whole = all(type(n) is int and n >= 0 for n in counts) and len(shape) == len(stride) <= 16
    if not isinstance(storage, _Storage) or not whole or rest[:1] not in ((), ({},)):
        raise ValueError("it holds a malformed tensor")
    last = offset + sum((n - 1) * step for n, step in zip(shape, stride, strict=True))
    if math.prod(shape) and last >= storage.numbers:
        raise ValueError(f"a tensor of shape {shape!r:.60} reaches beyond its stored numbers")
    return StoredTensor(storage.kind, shape)


def _parameter(data: Any, grad: Any, hooks: Any) -> StoredTensor:
    if not isinstance(data, StoredTensor):
        raise ValueError("it holds a parameter that is not a tensor")
    return data


_MAKERS: dict[str, Callable[..., Any]] = {
    "collections OrderedDict": dict,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_parameter": _parameter,
}
_PUSHED: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "BINFLOAT", "LONG1"), lambda value: value),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINSTRING"), lambda value: value),
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
}
_STEPS: dict[str, Callable[[_Walk, Any], None]] = {
    "PROTO": lambda walk, _: None,
    "GLOBAL": _Walk.name,
    "MARK": _Walk.mark,
    "TUPLE": lambda walk, _: walk.group(None),
    "TUPLE1": lambda walk, _: walk.group(1),
    "TUPLE2": lambda walk, _: walk.group(2),
    "TUPLE3": lambda walk, _: walk.group(3),
    "BINPUT": _Walk.put,
    "LONG_BINPUT": _Walk.put,
    "BINGET": _Walk.get,
    "LONG_BINGET": _Walk.get,
    "SETITEM": lambda walk, _: walk.store([walk.stack.pop(), walk.stack.pop()][::-1]),
    "SETITEMS": lambda walk, _: walk.store(walk.marked()),
    "APPEND": lambda walk, _: walk.extend([walk.stack.pop()]),
    "APPENDS": lambda walk, _: walk.extend(walk.marked()),
    "BINPERSID": _Walk.load_storage,
    "REDUCE": _Walk.reduce,
    "BUILD": _Walk.build,
}
