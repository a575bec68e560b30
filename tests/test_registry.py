"""Registries: look-up by name, over files, entry points and `register` calls."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import latentmas
from latentmas.backbones import families
from latentmas.backbones._registry import find_family
from latentmas.errors import LatentMASError, UnknownNameError
from latentmas.links import Link, link_kinds
from latentmas.registry import Registry

PACKAGE = Path(latentmas.__file__).parent


@pytest.fixture
def registry() -> Registry[object]:
    """A registry over the files of `latentmas.links`, apart from the real one."""
    return Registry("link kind", "latentmas.links")


@pytest.fixture
def distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed distribution that offers a link kind, and one that cannot be imported."""
    (tmp_path / "mypkg.py").write_text("class Mine:\n    pass\n", encoding="utf-8")
    info = tmp_path / "mypkg-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: mypkg\nVersion: 1.0\n", encoding="utf-8"
    )
    (info / "entry_points.txt").write_text(
        "[latentmas.links]\nmine = mypkg:Mine\nrecursive = mypkg:Mine\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mypkg", raising=False)
    return tmp_path


def test_register_and_get(registry: Registry[object]) -> None:
    @registry.register("special")
    class Special:
        pass

    assert registry.get("special") is Special
    assert "special" in registry
    assert "special" in registry.names()


def test_a_name_is_taken_once(registry: Registry[object]) -> None:
    registry.register("special")(Path)
    with pytest.raises(LatentMASError, match="registered twice") as caught:
        registry.register("special")(Registry)
    assert "Path" in str(caught.value)
    assert registry.get("special") is Path


def test_running_a_cell_again_replaces_the_entry(registry: Registry[object]) -> None:
    def cell() -> type:
        class Mine:
            pass

        return registry.register("mine")(Mine)  # type: ignore[return-value]

    first, second = cell(), cell()
    assert first is not second
    assert registry.get("mine") is second


@pytest.mark.parametrize("name", ["", "two words", "a-b", "1st", "a.b"])
def test_names_are_identifiers(registry: Registry[object], name: str) -> None:
    with pytest.raises(LatentMASError, match="not a Python identifier"):
        registry.register(name)


@pytest.mark.parametrize(
    "name", ["recursiv", "_base", "_registry", "", "a.b", "../links", "Recursive"]
)
def test_unknown_names(name: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        link_kinds.get(name)
    assert name not in link_kinds
    assert caught.value.name == name
    assert set(link_kinds.names()) == set(caught.value.known)
    assert str(caught.value).startswith(f"unknown link kind {name!r}; ")


def test_a_suggestion_is_made() -> None:
    with pytest.raises(UnknownNameError, match=r"did you mean 'recursive'\? known: "):
        link_kinds.get("recursiv")
    with pytest.raises(UnknownNameError, match=r"'xyz'; known: identity, linear"):
        link_kinds.get("xyz")


def test_membership_of_other_things(registry: Registry[object]) -> None:
    assert None not in registry
    assert 3 not in registry


def test_entry_points(registry: Registry[object], distribution: Path) -> None:
    assert "mine" in registry.names()
    assert "mypkg" not in sys.modules, "names are listed without importing"
    entry = registry.get("mine")
    assert sys.modules["mypkg"].Mine is entry
    assert registry.get("mine") is entry


def test_entry_points_do_not_replace_what_is_built_in(distribution: Path) -> None:
    assert link_kinds.get("recursive").__module__ == "latentmas.links.recursive"
    assert link_kinds.names().count("recursive") == 1


def test_an_entry_point_that_cannot_be_imported_says_so(distribution: Path) -> None:
    (distribution / "mypkg.py").write_text("import not_there\n", encoding="utf-8")
    with pytest.raises((LatentMASError, ImportError), match="not_there"):
        Registry("link kind", "latentmas.links").get("mine")


@pytest.mark.parametrize("name", [p.stem for p in sorted((PACKAGE / "links").glob("[!_]*.py"))])
def test_link_kinds_are_named_like_their_files(name: str) -> None:
    kind = link_kinds.get(name)
    assert issubclass(kind, Link)
    assert kind.__module__ == f"latentmas.links.{name}"


def test_built_in_names_are_file_names() -> None:
    for registry, folder in ((link_kinds, "links"), (families, "backbones")):
        files = {
            path.stem for path in (PACKAGE / folder).glob("*.py") if not path.stem.startswith("_")
        }
        assert files <= set(registry.names())
        assert registry.names() == sorted(registry.names())
    templates = {path.stem for path in (PACKAGE / "templates").glob("*.py") if path.stem[0] != "_"}
    assert templates
    for name in templates:
        assert callable(getattr(latentmas.templates, name))


def test_families_are_found() -> None:
    assert type(find_family("no_such_type")) is families.get("auto")
    assert type(find_family("llama", "auto")) is families.get("auto")
    with pytest.raises(
        UnknownNameError, match="unknown backbone family 'autos'; did you mean 'auto'"
    ):
        find_family("llama", "autos")


def test_listing_names_costs_no_torch() -> None:
    code = (
        "import sys; from latentmas.links import link_kinds;"
        "from latentmas.backbones import families;"
        "print(link_kinds.names(), families.names()); sys.exit('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent
    )
    assert done.returncode == 0, done.stderr
    assert "recursive" in done.stdout
