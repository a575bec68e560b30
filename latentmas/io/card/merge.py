"""Keep the text that a person wrote in a model card when the card is regenerated."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from latentmas.safe_data import parse_yaml

__all__ = ["BEGIN", "END", "merge_person"]

BEGIN = "<!-- latentmas: generated from here on; write above, or below the end -->"
END = "<!-- latentmas: end of what is generated -->"
FRONT = re.compile(r"\A---[ \t]*\n(.*?)^---[ \t]*(?:\n|\Z)", re.DOTALL | re.MULTILINE)
KEY = re.compile(r"^([A-Za-z_][\w-]*)[ \t]*:")
OURS = ("library_name", "base_model", "base_model_relation", "tags")
"""Generated metadata keys; tags that a person added are kept."""


def merge_person(card: str, old: Sequence[str]) -> str:
    """Merge the text that people wrote in older cards into a generated card.

    Metadata that is not generated is kept, and so is text outside the two marks. A card that lacks
    either mark was written entirely by a person; all of it is kept, above the generated part.

    Args:
        card: the card that `model_card` generated.
        old: older cards; text and metadata come from the first card that has them.
    """
    new = _read(card)
    for text in old:
        parts = _read(text)
        if not new.before.strip() and not new.after.strip():
            new.before, new.after = parts.before, parts.after
        names = {key for key, _ in new.metadata if key}
        new.metadata += [entry for entry in parts.metadata if entry[0] not in (*OURS, *names)]
        new.metadata = [_with_tags(e, parts.metadata) for e in new.metadata]
    front = "".join(text for _, text in new.metadata)
    before = f"\n{new.before.strip()}\n" if new.before.strip() else ""
    after = f"\n{new.after.strip()}\n" if new.after.strip() else ""
    return f"---\n{front}---\n{before}\n{BEGIN}\n{new.generated.strip()}\n{END}\n{after}"


Entry = tuple[str, str]
"""A metadata key (empty for a comment) and its lines."""


@dataclass
class _Card:
    metadata: list[Entry]
    before: str
    generated: str
    after: str


def _read(text: str) -> _Card:
    text = text.replace("\r\n", "\n").removeprefix("\ufeff")
    front = FRONT.match(text)
    metadata = _entries(front.group(1)) if front else []
    rest = text[front.end() :] if front else text
    begin, end = rest.find(BEGIN), rest.rfind(END)
    if 0 <= begin < end:
        inside = rest[begin + len(BEGIN) : end]
        return _Card(metadata, rest[:begin], inside, rest[end + len(END) :])
    return _Card(metadata, rest.replace(BEGIN, "").replace(END, ""), "", "")


def _entries(front: str) -> list[Entry]:
    """Metadata keys with the lines that belong to each."""
    found: list[Entry] = []
    for line in front.splitlines(keepends=True):
        key = KEY.match(line)
        if key or line.startswith("#") or not found:
            found.append((key.group(1) if key else "", line))
        else:
            found[-1] = (found[-1][0], found[-1][1] + line)
    return found


def _with_tags(entry: Entry, old: Sequence[Entry]) -> Entry:
    """The entry; if it holds the tags, with the missing older tags added."""
    if entry[0] != "tags":
        return entry
    here, there = (
        _tags(entry[1]),
        [tag for key, text in old if key == "tags" for tag in _tags(text)],
    )
    more = [tag for tag in there if tag not in here and not tag.startswith("latentmas-")]
    return "tags", entry[1] + "".join(f"- {_scalar(tag)}\n" for tag in more)


def _tags(text: str) -> list[str]:
    try:
        tags = parse_yaml(text)["tags"]
    except (TypeError, LookupError, ValueError):
        return []
    return [tag for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []


def _scalar(text: str) -> str:
    return yaml.safe_dump(text, allow_unicode=True, width=10_000).removesuffix("...\n").strip()
