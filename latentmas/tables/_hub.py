"""Data sets of the Hugging Face Hub, read through the library `datasets`."""

from __future__ import annotations

from typing import Any

from latentmas.errors import DataError
from latentmas.tables._table import EXTRA, Table, check_count

__all__ = ["download_table"]


def download_table(
    name: str,
    *,
    split: str,
    config: str | None = None,
    revision: str | None = None,
    limit: int | None = None,
    gated: bool = False,
) -> Table:
    """Rows of a data set on the Hub. A set that has been downloaded before needs no network.

    Args:
        name: data set, as `owner/name`.
        split: its split.
        config: its configuration (subset); None if it has only one.
        revision: commit, branch or tag; None reads the newest.
        limit: maximum number of rows, from the start.
        gated: whether its owners grant access on request, for the error.

    Raises:
        DataError: `datasets` is not installed; or LM511, the data set cannot be downloaded.
    """
    data = _load(name, config, split, revision, gated)
    source = f"{name}{'@' + revision if revision else ''}"
    source += f" ({'/'.join(filter(None, (config, split)))})"
    count = len(data) if limit is None else min(limit, len(data))
    check_count(source, count)
    return Table([dict(data[number]) for number in range(count)], source)


def _load(name: str, config: str | None, split: str, revision: str | None, gated: bool) -> Any:
    try:
        from datasets import load_dataset
    except ImportError as error:
        raise DataError(
            f"reading {name!r} from the Hub needs the package datasets; install it with "
            f"{EXTRA}, or give a local file of the same form (path=…)"
        ) from error
    try:
        return load_dataset(name, config, split=split, revision=revision)
    except Exception as error:  # the library's own errors and those of the Hub's client
        lines = (str(error).strip() or repr(error)).splitlines()
        page = f"https://huggingface.co/datasets/{name}"
        access = (
            f"access is granted on request: accept the terms at {page}, and log in with "
            "`hf auth login`"
            if gated
            else f"check the network, and the name and the revision at {page}"
        )
        raise DataError(
            f"LM511 cannot download the data set {name!r} from the Hub: {lines[0]:.300}; "
            f"{access}; or download a file of it elsewhere and give its path (path=…)"
        ) from error
