"""Digests of data and weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable

from latentmas.errors import DataError
from latentmas.runtime import System, link_digests
from latentmas.spec import canonical_json

__all__ = ["digest_rows", "digest_text", "link_digests", "weights_digest"]


def digest_rows(rows: Iterable[object]) -> str:
    """SHA-256 (hex) of rows, in order; the order of fields in a row does not matter.

    Raises:
        DataError: a row contains itself or has keys that JSON does not allow.
    """
    digest = hashlib.sha256()
    for number, row in enumerate(rows):
        try:
            text = json.dumps(row, sort_keys=True, default=str, separators=(",", ":"))
        except (ValueError, TypeError, RecursionError) as error:
            raise DataError(
                f"row {number} cannot be converted to JSON: {error}; "
                "use plain values with text keys"
            ) from error
        digest.update(text.encode() + b"\n")
    return digest.hexdigest()


def digest_text(text: str) -> str:
    """SHA-256 (hex) of a text."""
    return hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()


def weights_digest(system: System) -> str:
    """SHA-256 (hex) of the weights of all links."""
    return digest_text(canonical_json(link_digests(system)))
