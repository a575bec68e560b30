"""LoRA adapters as PEFT saves them: found, and judged by their configuration. No weights, no peft.

An adapter comes from outside: its files are read within bounds, its weights only from safetensors,
and of its configuration only what is known here is acted on. Regular expressions in it are never
evaluated; which modules it adapts is read off the names of its weights.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from latentmas.errors import WeightsError
from latentmas.safe_data import Header, read_header, read_json

__all__ = ["AdapterConfig", "AdapterError", "AdapterFiles", "find_adapter", "module_ranks"]

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
LARGEST_CONFIG = 2**20
MERGE = (
    "merge the adapter into its model with peft (model.merge_and_unload(), then save_pretrained) "
    "and give the folder as source"
)
_PLAIN = re.compile(r"\^?[A-Za-z0-9_.-]+")
"""Names of modules in patterns; a leading `^` makes one a full name."""
_SAFE_STARTS = (None, True, False, "gaussian", "orthogonal", "eva")
"""Initialisations that leave the model's own weights as they are."""
_WITHOUT_EFFECT = frozenset(
    (
        *("task_type", "auto_mapping", "peft_version", "revision"),
        *("inference_mode", "lora_dropout", "exclude_modules", "layers_to_transform"),
        *("layers_pattern", "megatron_config", "megatron_core", "runtime_config"),
        *("eva_config", "corda_config", "lora_ga_config", "loftq_config"),
        *("qalora_group_size", "parent_library"),
    )
)
"""Fields that only matter while an adapter is trained, or that the names of its weights settle."""
_KEY = re.compile(
    r"base_model\.model\.(?P<module>[A-Za-z0-9_.-]+)\."
    r"(?P<part>lora_A\.weight|lora_B\.weight|lora_B\.bias|lora_magnitude_vector(\.weight)?)"
)


class AdapterError(WeightsError):
    """An adapter cannot be used; `message` says why, and `hint` what to do."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(f"LM208 {message}; {hint}")
        self.message, self.hint = message, hint

    def __reduce__(self) -> Any:
        """Pickle both parts, for workers that hand errors back."""
        return type(self), (self.message, self.hint)


class AdapterConfig(BaseModel):
    """What of an `adapter_config.json` matters."""

    model_config = ConfigDict(extra="allow", hide_input_in_errors=True)

    peft_type: str
    r: int = Field(ge=1, le=2**16)
    lora_alpha: float = Field(gt=0, allow_inf_nan=False)
    target_modules: list[str] | str | None = None
    base_model_name_or_path: str | None = None
    bias: str = "none"
    use_rslora: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    fan_in_fan_out: bool = False
    init_lora_weights: bool | str | None = True
    modules_to_save: list[str] | None = None
    rank_pattern: dict[str, int] = Field(default_factory=dict)
    alpha_pattern: dict[str, float] = Field(default_factory=dict)

    @field_validator("rank_pattern", "alpha_pattern", mode="before")
    @classmethod
    def _none_is_empty(cls, value: Any) -> Any:
        return value or {}

    @property
    def rank(self) -> int:
        """The largest rank."""
        return max([self.r, *self.rank_pattern.values()])

    @property
    def targets(self) -> tuple[str, ...]:
        """Names of the adapted modules as given, sorted."""
        found = self.target_modules or []
        return (found,) if isinstance(found, str) else tuple(sorted(set(found)))

    def rank_of(self, module: str) -> int:
        """Rank of a module by its full name."""
        return int(_of(self.rank_pattern, module, self.r))

    def alpha_of(self, module: str) -> float:
        """Scale of a module by its full name, before it is divided by the rank."""
        return float(_of(self.alpha_pattern, module, self.lora_alpha))


class AdapterFiles(NamedTuple):
    """An adapter that was found and judged."""

    name: str
    """Name as declared."""
    config: AdapterConfig
    """Judged configuration."""
    folder: Path | None
    """Folder on this machine; None for one on the hub."""
    revision: str | None
    """Branch, tag or commit that was asked for."""
    commit: str | None
    """Commit on the hub that its configuration was read at."""

    def weights(self) -> Path:
        """Path of the weights; downloaded if they are on the hub.

        Raises:
            AdapterError: The adapter has no weights in safetensors format.
        """
        return _file(self.name, self.folder, WEIGHTS, self.commit or self.revision)


def _of(pattern: dict[str, Any], module: str, default: Any) -> Any:
    """The value for a module: of the first key that is its name, or the end of it."""
    keys = (key for key in pattern if module == key.lstrip("^") or module.endswith(f".{key}"))
    key = next(keys, None)
    return default if key is None else pattern[key]


def find_adapter(name: str, resolved: str, revision: str | None) -> AdapterFiles:
    """Find an adapter and judge its configuration.

    Args:
        name: As declared.
        resolved: Folder or hub id.
        revision: Branch, tag or commit on the hub.

    Raises:
        AdapterError: It is not there, or is not a LoRA adapter that can be used.
    """
    folder = Path(resolved) if Path(resolved).is_dir() else None
    path = _file(name, folder, CONFIG, revision)
    try:
        data = read_json(path, LARGEST_CONFIG, numbers="any")
        _judge_type(name, data)
        config = AdapterConfig.model_validate(data)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise AdapterError(
            f"adapter {name!r}: its {CONFIG} is not that of a LoRA adapter: {wrong:.300}",
            "give a folder or a hub id of a LoRA adapter that PEFT saved",
        ) from error
    except WeightsError as error:
        if isinstance(error, AdapterError):
            raise
        raise AdapterError(f"adapter {name!r}: {error}", "save it again with PEFT") from error
    _judge(name, config)
    commit = path.parent.name if folder is None else None
    return AdapterFiles(name, config, folder, revision, commit)


def _file(name: str, folder: Path | None, wanted: str, revision: str | None) -> Path:
    if folder is not None:
        path = folder / wanted
        if path.is_file():
            return path
        raise _lacking(name, wanted, pickled=(folder / PICKLED).is_file())
    try:
        return Path(hf_hub_download(name, wanted, revision=revision))
    except EntryNotFoundError as error:
        raise _lacking(name, wanted, pickled=wanted == WEIGHTS) from error
    except Exception as error:  # the hub's client raises errors of many kinds
        reason = " ".join(str(error).split("\n", 1)[0].split()) or repr(error)
        raise AdapterError(
            f"adapter {name!r}: {wanted} cannot be downloaded: {reason:.200}",
            "check the id, or give the path of a folder",
        ) from error


def _lacking(name: str, wanted: str, *, pickled: bool) -> AdapterError:
    if wanted == WEIGHTS and pickled:
        return AdapterError(
            f"adapter {name!r} has no {WEIGHTS}; a {PICKLED} is a pickle, which may run code when "
            "it is read, so it is not used",
            "load it with PEFT where you trust it, and save it again: "
            "model.save_pretrained(folder, safe_serialization=True)",
        )
    return AdapterError(
        f"adapter {name!r} has no {wanted}",
        "give the folder or the hub id of a LoRA adapter that PEFT saved",
    )


def _judge_type(name: str, data: Any) -> None:
    kind = data.get("peft_type") if isinstance(data, dict) else None
    if isinstance(kind, str) and kind.upper() != "LORA":
        raise AdapterError(
            f"adapter {name!r} is of type {kind!r:.40}, and only LoRA adapters are supported",
            f"train a LoRA adapter, or {MERGE}",
        )


def _judge(name: str, config: AdapterConfig) -> None:
    """Refuse what is not a plain LoRA adapter over frozen weights.

    Raises:
        AdapterError: Saying which field stands in the way.
    """
    if config.modules_to_save:
        modules = ", ".join(config.modules_to_save)
        raise AdapterError(
            f"adapter {name!r} replaces whole modules ({modules:.100}: modules_to_save), which "
            "the agents of one model would not share",
            MERGE,
        )
    if config.bias != "none":
        raise AdapterError(
            f"adapter {name!r} changes the model's own biases (bias={config.bias!r:.40})", MERGE
        )
    if config.init_lora_weights not in _SAFE_STARTS:
        raise AdapterError(
            f"adapter {name!r} belongs to a changed model "
            f"(init_lora_weights={config.init_lora_weights!r:.40})",
            "save it with PEFT's path_initial_model_for_weight_conversion, which makes it a plain "
            f"LoRA adapter, or {MERGE}",
        )
    for key in (*config.rank_pattern, *config.alpha_pattern):
        if not _PLAIN.fullmatch(key):
            raise AdapterError(
                f"adapter {name!r} selects modules by the regular expression {key!r:.80}, which is "
                "not evaluated",
                f"name the modules in rank_pattern and alpha_pattern, or {MERGE}",
            )
    for key, value in (config.model_extra or {}).items():
        if value and key not in _WITHOUT_EFFECT:
            raise AdapterError(
                f"adapter {name!r} has {key}={value!r:.60}, which latentmas does not support", MERGE
            )


def module_ranks(name: str, config: AdapterConfig, path: Path) -> tuple[dict[str, int], Header]:
    """Adapted modules with their ranks, and the header of the file, read without the weights.

    Raises:
        AdapterError: The file holds something other than LoRA weights of the declared ranks.
    """
    try:
        header = read_header(path)
    except WeightsError as error:
        raise AdapterError(f"adapter {name!r}: {error}", "copy or download it again") from error
    again = "save the adapter again with PEFT"
    ranks: dict[str, int] = {}
    for key, entry in header.entries.items():
        found = _KEY.fullmatch(key)
        if found is None:
            raise AdapterError(
                f"adapter {name!r}: {WEIGHTS} holds {key!r:.120}, which is not a LoRA weight of a "
                "layer",
                f"use an adapter of linear layers, or {MERGE}",
            )
        if found["part"] == "lora_A.weight":
            ranks[found["module"]] = entry.shape[0] if entry.shape else 0
    for module, rank in ranks.items():
        if rank != config.rank_of(module):
            raise AdapterError(
                f"adapter {name!r}: {module} has rank {rank} in {WEIGHTS}, and rank "
                f"{config.rank_of(module)} in {CONFIG}",
                again,
            )
    if not ranks:
        raise AdapterError(f"adapter {name!r}: {WEIGHTS} holds no LoRA weights", again)
    return ranks, header
