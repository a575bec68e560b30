"""What a declaration wants to run that is not this package's: code from a model's repository."""

from __future__ import annotations

import re
from collections.abc import Mapping

from latentmas.spec.backbone import Backbone

__all__ = ["ALLOW", "code_wanted"]

ALLOW = (
    "read that code, then pass trust_remote_code=True (`latentmas --trust-remote-code COMMAND …`); "
    "or take the request out of the file"
)
"""What to do about it."""
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")


def code_wanted(backbones: Mapping[str, Backbone]) -> dict[str, str]:
    """Backbones by key that ask for code of others to be run, with what they ask for.

    It may be `trust_remote_code`, or an `attention` that names a kernel on the hub.
    """
    found = {}
    for key, backbone in backbones.items():
        if backbone.trust_remote_code:
            found[key] = f"the code of {backbone.source!r} (trust_remote_code)"
        elif backbone.attention is not None and not _PLAIN.fullmatch(backbone.attention):
            found[key] = f"the attention kernel {backbone.attention!r}"
    return found
