"""Reading a model's configuration, with the further arguments of its declaration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import AutoConfig, PreTrainedConfig

from latentmas.backbones.loading.files import Files
from latentmas.backbones.loading.refusals import RefusedBackboneError
from latentmas.backbones.loading.sizes import check_sizes, judge_sizes
from latentmas.errors import closest
from latentmas.spec import refused_arguments

__all__ = ["read_config"]

ARGUMENTS = (
    *("code_revision", "experts_implementation", "force_download", "key_mapping"),
    *("local_files_only", "use_safetensors", "variant"),
)
"""Arguments of `from_pretrained` that choose files, or how weights are arranged."""
OF_FILES = frozenset({"code_revision", "force_download", "local_files_only"})
"""Those that reading a configuration takes, too."""


def read_config(files: Files, load: Mapping[str, Any]) -> Any:
    """The configuration of a model, with fields that the declaration changes.

    Args:
        files: Where the model is.
        load: Further arguments of `from_pretrained`.

    Raises:
        RefusedBackboneError: LM204, an argument is refused, unknown, or not a field of the
            configuration.
        WeightsError: A size exceeds that of any known model.
    """
    own = {name: load[name] for name in load.keys() & OF_FILES}
    for name, instead in refused_arguments(load):
        raise RefusedBackboneError("LM204", f"load does not take {name!r}", f"remove it; {instead}")
    place = {name: value for name, value in files.options.items() if name != "trust_remote_code"}
    check_sizes(files.source, **place, **own)
    judge_sizes(files.source, dict(load))
    config = AutoConfig.from_pretrained(files.source, **files.options, **own)
    fields = {name: value for name, value in load.items() if name not in ARGUMENTS}
    _check_fields(files.source, config, fields)
    if not fields:
        return config
    return AutoConfig.from_pretrained(files.source, **files.options, **own, **fields)


def _check_fields(source: str, config: PreTrainedConfig, fields: Mapping[str, Any]) -> None:
    known = [*ARGUMENTS, *(name for name in config.to_dict() if not name.startswith("_"))]
    for name in fields:
        if name not in known:
            guess = closest(name, known)
            raise RefusedBackboneError(
                "LM204",
                f"load has {name!r}, which is neither a field of the configuration of {source!r} "
                f"nor one of {', '.join(ARGUMENTS)}",
                f"did you mean {guess!r}?" if guess else "remove it, or correct its name",
            )
