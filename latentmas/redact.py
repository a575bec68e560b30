"""Removes secrets from text that is written, shown or logged.

A secret is a token recognised by its form (`hf_…`), credentials or a token in a URL, or a known
value: that of an environment variable such as `HF_TOKEN`, or one passed to `hide`.
"""

from __future__ import annotations

import logging
import os
import re

__all__ = ["get_logger", "hide", "redact", "secrets_in"]

HIDDEN = "…"
SHORTEST = 8
"""Shorter values of environment variables are not secrets: `TOKEN=off`."""
NAMES = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|API_?KEY|ACCESS_KEY|PRIVATE_KEY|CREDENTIALS?)$", re.I
)
FORMS = re.compile(r"\b(?:hf_[A-Za-z0-9]{16,}|sk-[A-Za-z0-9_-]{20,}|gh[opsu]_[A-Za-z0-9]{20,})")
# Accept a single slash after the scheme, because pathlib collapses the two.
CREDENTIALS = re.compile(r"\b([a-z][a-z0-9+.-]+:/{1,2})[^/\s'\"@]+@", re.I)
QUERY = re.compile(
    r"([?&][\w.-]*(?:token|secret|password|key|signature|credential|auth|sig)=)[^&\s'\"]+", re.I
)
_given: set[str] = set()


def hide(value: object) -> None:
    """Remember a secret that was passed to a function, so that it is never shown."""
    if isinstance(value, str) and len(value) >= SHORTEST:
        _given.add(value)


def redact(text: str) -> str:
    """The text with every secret in it replaced by `…`."""
    for value in _known().values():
        text = text.replace(value, HIDDEN)
    text = FORMS.sub(HIDDEN, text)
    return QUERY.sub(rf"\1{HIDDEN}", CREDENTIALS.sub(rf"\1{HIDDEN}@", text))


def secrets_in(text: str) -> list[str]:
    """The secrets in a text, by the names of their variables or by their form.

    URLs with credentials are excluded, since prompts may show one as an example.
    """
    found = [name for name, value in _known().items() if value in text]
    return found + (["a token by its form"] if FORMS.search(text) and not found else [])


def get_logger(name: str) -> logging.Logger:
    """A logger that removes secrets from its records."""
    logger = logging.getLogger(name)
    if not any(isinstance(known, _Redacting) for known in logger.filters):
        logger.addFilter(_Redacting())
    return logger


class _Redacting(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        """Pass every record with its secrets removed."""
        record.msg, record.args = redact(record.getMessage()), ()
        return True


def _known() -> dict[str, str]:
    """Secret values by name, longest first, since one may be part of another."""
    found = {f"a token given ({i})": value for i, value in enumerate(sorted(_given))}
    found |= {
        name: value
        for name, value in os.environ.items()
        if len(value) >= SHORTEST and NAMES.search(name)
    }
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))
