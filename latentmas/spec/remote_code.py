"""Third-party code that a declaration asks to run: code from a model's repository."""

from __future__ import annotations

import re
from collections.abc import Mapping

from latentmas.spec.backbone import Backbone

__all__ = ["ALLOW", "code_wanted"]

ALLOW = (
    "read that code, then pass trust_remote_code=True (`latentmas --trust-remote-code COMMAND …`); "
    "or remove the request from the file"
)
"""The hint of the error."""
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


def code_wanted(backbones: Mapping[str, Backbone]) -> dict[str, str]:
    """Backbones that ask to run third-party code: key → the code they ask for.

    This may be `trust_remote_code`, or an `attention` that names a kernel on the hub.
    """
    found = {}
    for key, backbone in backbones.items():
        if backbone.trust_remote_code:
            found[key] = f"the code of {backbone.source!r} (trust_remote_code)"
        elif backbone.attention is not None and not _PLAIN.fullmatch(backbone.attention):
            found[key] = f"the attention kernel {backbone.attention!r}"
    return found
