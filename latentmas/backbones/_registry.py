"""The registry of backbone families; importing it costs no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.registry import Registry

if TYPE_CHECKING:
    from latentmas.backbones._base import Family

__all__ = ["PARTS", "families", "find_family", "parts_of"]

PARTS = frozenset({"head", "embeddings", "tokenizer"})
"""What link kinds may use of a model; a family whose models lack some says so."""

families: Registry[type[Family]] = Registry("backbone family", "latentmas.backbones")
"""Families by name; a family declares the `model_type`s that it handles."""


def find_family(model_type: str, name: str | None = None) -> Family:
    """The family called `name`, else the one that declares `model_type`, else `auto`.

    Raises:
        UnknownNameError: no family is called `name`.
    """
    if name is not None:
        return families.get(name)()
    for candidate in families.names():
        family = families.get(candidate)
        if model_type in family.model_types:
            return family()
    return families.get("auto")()


def parts_of(model_type: str, name: str | None = None) -> frozenset[str]:
    """What the models of a family provide for links; families as `find_family` takes them.

    `auto` provides all: where no other family is known, nothing is imported.

    Raises:
        UnknownNameError: no family is called `name`.
    """
    if name in (None, "auto") and set(families.names()) <= {"auto"}:
        return PARTS
    return find_family(model_type, name).provides
