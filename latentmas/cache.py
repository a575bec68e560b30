"""The folder for files that can be regenerated."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder() -> Path:
    """`$LATENTMAS_CACHE`, or `latentmas` in the user's cache folder; it may not exist yet."""
    if own := os.environ.get("LATENTMAS_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "latentmas"
