"""Checkpoints: which one to go on from, and whether it is sound; nothing is loaded here."""

from __future__ import annotations

import dataclasses
import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from transformers import TrainerState

from latentmas.atomic import WriteError, write_error
from latentmas.errors import DataError, WeightsError
from latentmas.redact import get_logger
from latentmas.runtime import System
from latentmas.safe_data import RANDOM_STATES, StoredTensor, read_json, scan_archive

__all__ = [
    "check_checkpoint",
    "find_checkpoint",
    "has_checkpoint",
    "set_aside_checkpoints",
    "writing_checkpoint",
]

log = get_logger("latentmas.training")

AUTO = "auto"
"""Goes on from the last checkpoint, or begins where there is none: for jobs that are restarted."""
STATE = "trainer_state.json"
LARGEST_STATE = 64 * 2**20
REQUIRED = {
    "optimizer.pt": "optimizer.pt",
    "scheduler.pt": "scheduler.pt",
    "rng_state.pth": "rng_state*.pth",  # one for each process of the training
}
"""Files without which a training does not go on as it was, and what they may be called."""
SLACK = 16 * 2**20
"""Bytes that a file of an optimizer may have beyond its numbers."""
COPIES = 4
"""Numbers of an optimizer for each weight, with room to spare."""
_TYPES = frozenset(
    f"torch {name}"
    for name in (
        *("float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8"),
        *("bool", "device", "Size"),
    )
)
"""Names that optimizers other than Adam may keep."""
_TORCH_CANNOT_WRITE = ("iostream error", "PytorchStreamWriter", "inline_container")
_FOLDER = re.compile(r"checkpoint-(\d{1,12})")


class _State(BaseModel):
    """What `trainer_state.json` must be like; transformers takes it as it is."""

    model_config = ConfigDict(extra="ignore", strict=True)

    epoch: float | None = Field(default=0.0, ge=0, allow_inf_nan=False)
    global_step: int = Field(ge=0, le=10**9)
    max_steps: int = Field(default=0, le=10**12)
    logging_steps: float = Field(default=500, ge=0, allow_inf_nan=False)
    eval_steps: float = Field(default=500, ge=0, allow_inf_nan=False)
    save_steps: float = Field(default=500, ge=0, allow_inf_nan=False)
    train_batch_size: int | None = Field(default=None, ge=1, le=2**20)
    num_train_epochs: float = 0
    num_input_tokens_seen: float = 0
    total_flos: float = 0
    log_history: list[dict[str, Any]] = Field(default_factory=list)
    best_metric: float | None = None
    best_global_step: int | None = None
    best_model_checkpoint: str | None = None
    is_local_process_zero: bool = True
    is_world_process_zero: bool = True
    is_hyper_param_search: bool = False
    trial_name: str | None = None
    trial_params: dict[str, Any] | None = None
    stateful_callbacks: dict[str, Any] = Field(default_factory=dict)


def find_checkpoint(output_dir: str, resume: bool | str | None) -> str | None:
    """The checkpoint to go on from.

    Among those of a folder, one that was cut short (its last file is missing or damaged) is passed
    over. It is set aside under another name, so that the training that goes on does not write over
    it; nothing is deleted.

    Args:
        output_dir: Folder of the training.
        resume: Folder of a checkpoint; True for the last whole one of `output_dir`; `"auto"` for
            that one if there is any, else None.

    Raises:
        DataError: there is none.
    """
    if not resume or (resume == AUTO and not has_checkpoint(Path(output_dir))):
        return None
    resume = resume == AUTO or resume
    if isinstance(resume, str):
        if not Path(resume).is_dir():
            raise DataError(f"cannot resume: there is no checkpoint folder {resume!r}")
        if why := _damage(Path(resume)):
            raise DataError(f"cannot resume: {_cut_short(resume, why)}")
        return resume
    numbered = _numbered(Path(output_dir))
    broken: dict[Path, str] = {}
    for path in sorted(numbered, key=lambda path: numbered[path], reverse=True):
        why = _damage(path)
        if not why:
            for other in broken:
                _set_aside(other)
            return str(path)
        broken[path] = why
    if broken:
        newest, why = next(iter(broken.items()))
        raise DataError(f"cannot resume: {_cut_short(str(newest), why)}; it is left as it is")
    raise DataError(
        f"cannot resume: {output_dir!r} has no checkpoint; train without resume (--resume)"
    )


def has_checkpoint(output_dir: Path) -> bool:
    """Whether a training left a checkpoint here that is whole."""
    return any(not _damage(path) for path in _numbered(output_dir))


def set_aside_checkpoints(output_dir: Path) -> None:
    """Rename the checkpoints of an earlier training, when another one begins in its folder.

    Resuming and the limit on their number go by their steps, and would confuse the two.
    """
    for path in _numbered(output_dir):
        aside = _free_name(path, "earlier")
        path.rename(aside)
        log.info("the checkpoint of an earlier training is now %s", aside)


def _numbered(folder: Path) -> dict[Path, int]:
    """Checkpoints in a folder, and their steps."""
    return {
        path: int(match[1])
        for path in folder.glob("checkpoint-*")
        if (match := _FOLDER.fullmatch(path.name)) and path.is_dir() and not path.is_symlink()
    }


def _free_name(path: Path, why: str) -> Path:
    """A name beside `path`, with a word before it, that nothing has."""
    free = (f"{why}-{path.name}{'-' * bool(n)}{n or ''}" for n in range(1 << 30))
    return next(other for name in free if not (other := path.with_name(name)).exists())


def _damage(checkpoint: Path) -> str:
    """What is wrong with `trainer_state.json`, which is written last; empty when it is whole."""
    try:
        read_json(checkpoint / STATE, LARGEST_STATE, numbers="nan")
    except FileNotFoundError:
        return f"{STATE} is missing"
    except WeightsError as error:
        return str(error).removeprefix("LM502 ")
    return ""


def _cut_short(checkpoint: str, why: str) -> str:
    return (
        f"checkpoint {checkpoint!r} was cut short ({why}); take another one, or "
        f"{_links_alone(checkpoint)}"
    )


def _links_alone(checkpoint: str) -> str:
    """How to go on where the state of the optimizer is lost."""
    return (
        f"begin a new training from its links: system.load_links({checkpoint!r}), then train "
        "without resume (on the command line, give that folder as TEAM, without --resume)"
    )


def _set_aside(checkpoint: Path) -> None:
    """Rename a damaged checkpoint, so that no later one takes its place."""
    aside = _free_name(checkpoint, "damaged")
    with suppress(FileNotFoundError):  # another process of this training was first
        checkpoint.rename(aside)
        log.warning("%s was cut short; it is kept as %s", checkpoint, aside)


@contextmanager
def writing_checkpoint(output_dir: str) -> Iterator[None]:
    """Say why a checkpoint could not be written; earlier ones are as they were.

    Raises:
        WriteError: the operating system or torch could not write a file.
    """
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise write_error(output_dir, error, "cannot write a checkpoint to") from error
    except RuntimeError as error:
        if not any(words in str(error) for words in _TORCH_CANNOT_WRITE):
            raise
        # torch.save does not say why; most often the disk is full.
        full = OSError(
            errno.ENOSPC, f"torch could not save its file ({str(error).splitlines()[0]})"
        )
        raise write_error(output_dir, full, "cannot write a checkpoint to") from error


def check_checkpoint(folder: Path, system: System) -> None:
    """Check the parts that transformers reads, before any of them is loaded.

    transformers would resume without those that are missing, and say nothing.

    Raises:
        WeightsError: LM502 or LM503 with the file and what is wrong with it.
    """
    _check_state(folder / STATE)
    for name, pattern in REQUIRED.items():
        if next(folder.glob(pattern), None) is None:
            raise WeightsError(
                f"LM502 cannot resume: checkpoint {str(folder)!r} lacks {name}, so that a resumed "
                f"training would not continue the old one; {_links_alone(str(folder))}"
            )
    weights = sum(parameter.numel() for parameter in system.parameters())
    sizes = {"optimizer.pt": 8 * COPIES * weights + SLACK, "scheduler.pt": SLACK}
    sizes["scaler.pt"] = SLACK
    for name, most in sizes.items():
        if (folder / name).exists():
            archive = scan_archive(folder / name, most, _TYPES)
            _check_parts(folder / name, archive.content)
    for path in sorted(folder.glob("rng_state*.pth")):
        content = scan_archive(path, SLACK, RANDOM_STATES).content
        if not isinstance(content, dict) or not {"python", "numpy", "cpu"} <= set(content):
            raise WeightsError(f"LM502 {path} holds no states of random generators")


def _check_state(path: Path) -> None:
    data = read_json(path, LARGEST_STATE, numbers="nan")
    known = {field.name for field in dataclasses.fields(TrainerState)}
    if not isinstance(data, dict) or not set(data) <= known:
        found = (
            f"unknown fields {sorted(set(data) - known)}" if isinstance(data, dict) else "a list"
        )
        raise WeightsError(f"LM502 {path} is not the state of a training: {found:.200}")
    try:
        _State.model_validate(data)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5])
        raise WeightsError(f"LM502 {path} is not the state of a training: {wrong:.300}") from error


def _check_parts(path: Path, content: Any) -> None:
    """An optimizer's state has its numbers by parameter, and its groups."""
    if not isinstance(content, dict):
        raise WeightsError(f"LM502 {path} holds a {type(content).__name__}, no state")
    if path.name != "optimizer.pt":
        return
    state, groups = content.get("state"), content.get("param_groups")
    sound = isinstance(state, dict) and all(isinstance(own, dict) for own in state.values())
    if not sound or not isinstance(groups, list) or not all(map(_is_group, groups)):
        raise WeightsError(f"LM502 {path} holds no state of an optimizer")


def _is_group(group: Any) -> bool:
    """Whether it has a learning rate, as a number or a tensor of one."""
    rate = group.get("lr") if isinstance(group, dict) else None
    return isinstance(rate, int | float | StoredTensor)
