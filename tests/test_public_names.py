"""The public face: sorted, complete, documented."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

import pytest

import latentmas as lm


def test_all_is_sorted_and_resolves():
    assert sorted(lm.__all__, key=str.lower) == lm.__all__
    assert set(dir(lm)) == set(lm.__all__)
    for name in lm.__all__:
        assert getattr(lm, name) is not None


def packages_with_faces() -> list[str]:
    """All packages that list public names."""
    found = pkgutil.walk_packages(lm.__path__, "latentmas.")
    return [
        m.name for m in found if m.ispkg and hasattr(importlib.import_module(m.name), "__all__")
    ]


@pytest.mark.parametrize("name", packages_with_faces())
def test_every_name_of_a_package_resolves(name: str):
    """Many are imported when used, from modules that are named in strings."""
    package = importlib.import_module(name)
    for public in package.__all__:
        assert getattr(package, public) is not None, public


def test_nothing_public_is_left_out():
    public = {n for n, v in vars(lm).items() if not n.startswith("_") and not inspect.ismodule(v)}
    allowed = {"annotations", "TYPE_CHECKING", "Any"}
    assert public - allowed <= set(lm.__all__)


@pytest.mark.parametrize("name", lm.__all__)
def test_every_public_name_is_documented(name: str):
    thing = getattr(lm, name)
    assert (inspect.getdoc(thing) or "").strip(), name
    if not inspect.isclass(thing):
        return
    for attribute, member in vars(thing).items():
        if attribute.startswith("_") or attribute in ("model_config",):
            continue
        if inspect.isfunction(member) or isinstance(member, property | classmethod | staticmethod):
            assert (inspect.getdoc(getattr(thing, attribute)) or "").strip(), f"{name}.{attribute}"


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'Graf'"):
        lm.Graf  # noqa: B018
