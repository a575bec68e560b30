"""The registry of backbone families; importing it does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.registry import Registry

if TYPE_CHECKING:
    from latentmas.backbones._base import Family

__all__ = ["PARTS", "families", "find_family", "parts_of"]

PARTS = frozenset({"head", "embeddings", "tokenizer"})
"""Parts of a model that link kinds may use; a family declares which ones its models provide."""

families: Registry[type[Family]] = Registry("backbone family", "latentmas.backbones")
"""Families by name; a family declares the `model_type`s that it handles."""


def find_family(model_type: str, name: str | None = None) -> Family:
    """The family called `name`, or the one that declares `model_type`, or `auto`.

    Raises:
        UnknownNameError: No family is called `name`.
    """
    if name is not None:
        return families.get(name)()
    for candidate in families.names():
        family = families.get(candidate)
        if model_type in family.model_types:
            return family()
    return families.get("auto")()


def parts_of(model_type: str, name: str | None = None) -> frozenset[str]:
    """The parts that a family's models provide to links; arguments as for `find_family`.

    `auto` provides all, so nothing is imported if no other family is known.

    Raises:
        UnknownNameError: No family is called `name`.
    """
    if name in (None, "auto") and set(families.names()) <= {"auto"}:
        return PARTS
    return find_family(model_type, name).provides
