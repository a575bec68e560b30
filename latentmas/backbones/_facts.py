"""Facts about a backbone from its configuration: no weights, no network for local folders."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from latentmas.backbones._gguf import gguf_config, is_gguf
from latentmas.backbones._known import KNOWN
from latentmas.errors import WeightsError
from latentmas.plan import BackboneInfo
from latentmas.spec import Backbone

__all__ = ["UnsuitableBackboneError", "read_config", "read_info", "resolve_source"]

PACKAGE = "package:"


class UnsuitableBackboneError(WeightsError):
    """The model exists but is not a decoder with a hidden size and a vocabulary."""


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


def read_info(backbone: Backbone) -> BackboneInfo:
    """Read a backbone's configuration; the facts of the paper's models ship with the package.

    Raises:
        WeightsError: The configuration cannot be found or read (the message says why), the model is
            not a decoder, or its sizes exceed those of any known model.
    """
    source = resolve_source(backbone.source)
    if source in KNOWN and backbone.revision is None:
        return KNOWN[source]
    try:
        config = read_config(backbone, source)
        text = config.get_text_config(decoder=True)
    except WeightsError:
        raise
    except Exception as error:  # each model's configuration class may raise any exception
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise WeightsError(f"no configuration for {source!r}: {reason}") from error
    wanted = ("hidden_size", "vocab_size", "num_hidden_layers")
    missing = [name for name in wanted if not isinstance(getattr(text, name, None), int)]
    if getattr(config, "is_encoder_decoder", False) or missing:
        lack = f" (its configuration has no {', '.join(missing)})" if missing else ""
        raise UnsuitableBackboneError(f"{source!r} is {config.model_type}, not a decoder{lack}")
    from latentmas.backbones._costs import measure_costs

    try:
        return BackboneInfo(
            model_type=text.model_type,
            hidden_size=text.hidden_size,
            vocab_size=text.vocab_size,
            num_layers=text.num_hidden_layers,
            max_positions=getattr(text, "max_position_embeddings", None),
            costs=measure_costs(
                config, family=backbone.family, trust_remote_code=backbone.trust_remote_code
            ),
        )
    except ValidationError as error:
        wrong = "; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors())
        raise WeightsError(f"the configuration of {source!r} is invalid: {wrong}") from error


def read_config(backbone: Backbone, source: str) -> Any:
    """The configuration that transformers reads from a resolved source.

    Raises:
        WeightsError: Its sizes exceed those of any known model.
    """
    from transformers import AutoConfig

    from latentmas.backbones._sizes import (
        check_sizes,
        judge_sizes,
    )  # imported late: it imports transformers

    if is_gguf(source):
        config = gguf_config(source)
        judge_sizes(source, config.to_dict())
        return config
    check_sizes(source, revision=backbone.revision)
    return AutoConfig.from_pretrained(
        source, revision=backbone.revision, trust_remote_code=backbone.trust_remote_code
    )
