"""Where a backbone's files are, and how transformers is asked for them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, NamedTuple

from latentmas.backbones.loading.gguf import is_gguf
from latentmas.backbones.loading.refusals import RefusedBackboneError
from latentmas.errors import WeightsError
from latentmas.spec import Backbone

__all__ = ["Files", "files_of", "resolve_source", "tokenizer_files"]

PACKAGE = "package:"
TOKENIZER_FILES = (
    *("tokenizer.json", "tokenizer_config.json", "tokenizer.model", "vocab.json", "vocab.txt"),
    *("spiece.model", "sentencepiece.bpe.model", "tekken.json"),
)
"""A folder with none of these has no tokenizer."""


class Files(NamedTuple):
    """A hub id, folder or GGUF file, and further arguments of `from_pretrained`."""

    source: str
    options: dict[str, Any]


def files_of(spec: Backbone, commit: str | None = None) -> Files:
    """The files of a backbone's model.

    Args:
        spec: The backbone's declaration.
        commit: Commit on the hub that overrides the declared revision.

    Raises:
        WeightsError: The package, folder or file does not exist, or a path leaves its folder.
    """
    source = resolve_source(spec.source)
    options: dict[str, Any] = {"revision": commit or spec.revision}
    options["trust_remote_code"] = spec.trust_remote_code
    if spec.subfolder is None:
        return Files(source, options)
    if not Path(source).is_dir():
        return Files(source, options | {"subfolder": spec.subfolder})
    folder = (Path(source) / spec.subfolder).resolve()
    if not folder.is_relative_to(source):
        raise WeightsError(f"{spec.source!r}: subfolder {spec.subfolder!r} is outside of it")
    if not folder.is_dir():
        raise WeightsError(f"{spec.source!r} has no subfolder {spec.subfolder!r}")
    return Files(str(folder), options)


def tokenizer_files(spec: Backbone, model: Files) -> Files:
    """The files of a backbone's tokenizer: its own, or those that its declaration names.

    Raises:
        RefusedBackboneError: LM205, a named folder does not exist or has no tokenizer.
    """
    if spec.tokenizer is None:
        return model
    hint = "name a hub id, or a folder that `tokenizer.save_pretrained` wrote"
    try:
        source = resolve_source(spec.tokenizer)
    except WeightsError as error:
        raise RefusedBackboneError("LM205", f"tokenizer: {error}", hint) from error
    folder = Path(source)
    if is_gguf(source) or (
        folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES)
    ):
        message = f"tokenizer {spec.tokenizer!r} has no files of a tokenizer"
        raise RefusedBackboneError("LM205", message, hint)
    return Files(source, {"trust_remote_code": spec.trust_remote_code})


def resolve_source(source: str) -> str:
    """A hub id, or the absolute path of a folder or of a GGUF file.

    `package:NAME/path` refers to a path inside an installed Python package, which is not imported.

    Raises:
        WeightsError: The package, folder or file does not exist, or the path leaves the package.
    """
    if source.startswith(PACKAGE):
        name, _, rest = source.removeprefix(PACKAGE).partition("/")
        spec = importlib.util.find_spec(name) if name.isidentifier() else None
        if spec is None or not spec.submodule_search_locations:
            raise WeightsError(f"{source!r}: no Python package {name!r} is installed")
        root = Path(next(iter(spec.submodule_search_locations))).resolve()
        folder = (root / rest).resolve()
        if not folder.is_relative_to(root) or not _is_model(folder):
            raise WeightsError(f"{source!r}: package {name!r} has no folder or GGUF file {rest!r}")
        return str(folder)
    path = Path(source).expanduser()
    if "\0" not in source and _is_model(path):
        return str(path.resolve())
    if source.startswith((".", "/", "~")) or is_gguf(source):
        raise WeightsError(f"{'file' if is_gguf(source) else 'folder'} {source!r} does not exist")
    return source


def _is_model(path: Path) -> bool:
    return path.is_dir() or (is_gguf(path.name) and path.is_file())
