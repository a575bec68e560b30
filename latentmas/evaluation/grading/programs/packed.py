"""The test cases of LiveCodeBench: JSON, or base64 of a compressed pickle of such JSON.

A pickle is a program, and unpickling runs it. These hold one text, so the few opcodes that a text
takes are read here, nothing is unpickled, and whatever holds more is refused.
"""

from __future__ import annotations

import base64
import binascii
import json
import pickletools
import zlib
from typing import Any

from latentmas.errors import DataError

__all__ = ["read_cases"]

_LARGEST = 2**29
"""Bytes of unpacked test cases, at most."""
_TEXTS = frozenset({"UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"})
_IDLE = frozenset({"PROTO", "FRAME", "PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "STOP"})


def read_cases(text: str) -> list[dict[str, Any]]:
    """Test cases with `input`, `output` and `testtype`.

    Raises:
        DataError: The text holds something else, or is too large.
    """
    if not isinstance(text, str):
        raise DataError(f"test cases are a text, not a {type(text).__name__}")
    try:
        cases = json.loads(text if text.lstrip().startswith("[") else _unpacked(text))
    except (ValueError, RecursionError) as error:
        raise DataError(f"test cases cannot be read: {error!s:.200}") from error
    known = isinstance(cases, list) and all(
        isinstance(case, dict) and all(isinstance(case.get(k), str) for k in ("input", "output"))
        for case in cases
    )
    if not known:
        raise DataError("test cases are a list of objects with the texts `input` and `output`")
    return list(cases)


def _unpacked(text: str) -> str:
    try:
        packed = base64.b64decode(text, validate=True)
        reader = zlib.decompressobj()
        data = reader.decompress(packed, _LARGEST)
    except (binascii.Error, ValueError, zlib.error) as error:
        raise ValueError(f"neither JSON nor base64 of compressed data ({error})") from error
    if reader.unconsumed_tail:
        raise ValueError(f"they unpack to more than {_LARGEST:,} bytes")
    return _text_of(data)


def _text_of(pickled: bytes) -> str:
    """The one text that a pickle holds."""
    found: list[str] = []
    for opcode, argument, _ in pickletools.genops(pickled):
        if opcode.name in _TEXTS and not found:
            found.append(str(argument))
        elif opcode.name not in _IDLE:
            raise ValueError(f"the pickle holds more than a text: opcode {opcode.name}")
    if not found:
        raise ValueError("the pickle holds no text")
    return found[0]
