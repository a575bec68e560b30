"""The public face: sorted, complete, documented."""

from __future__ import annotations

import inspect

import pytest

import latentmas as lm


def test_all_is_sorted_and_resolves():
    assert sorted(lm.__all__, key=str.lower) == lm.__all__
    assert set(dir(lm)) == set(lm.__all__)
    for name in lm.__all__:
        assert getattr(lm, name) is not None


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
