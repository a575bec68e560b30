"""Samples judged before anything runs: every row that cannot be run is found, and says why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import TemplateError

from latentmas.arguments import is_unicode
from latentmas.engine import check_length, prompt_ids
from latentmas.errors import DataError, LatentMASError
from latentmas.generation import tool_schemas
from latentmas.plan import Decode, Plan, Rollout, latent_rows
from latentmas.spec import field_problem

if TYPE_CHECKING:
    from latentmas.runtime.system import System

__all__ = ["Errors", "Sample", "bad_samples", "check_prompts", "check_samples", "read_samples"]

Sample = str | Mapping[str, Any]
"""A string (the graph's first input) or input fields by name."""
Errors = dict[int, LatentMASError]
"""Number of a sample → why it has no answer."""
_TOLD = 20
"""Maximum number of samples whose errors are shown in full."""


def check_samples(plan: Plan, samples: Sequence[Sample]) -> list[Mapping[str, Any]]:
    """Samples as mappings that hold every input.

    Raises:
        DataError: naming every row that lacks a field, or whose field holds no Unicode text.
    """
    rows, errors = read_samples(plan, samples)
    if errors:
        raise bad_samples(errors, len(rows))
    return rows


def read_samples(
    plan: Plan, samples: Sequence[Sample]
) -> tuple[list[Mapping[str, Any]], dict[int, DataError]]:
    """Samples as mappings, and the errors of those that do not hold every input.

    Raises:
        DataError: `samples` is one sample, not a sequence of them.
    """
    if isinstance(samples, str | Mapping):
        raise DataError("run takes a sequence of samples; for one, call system(sample)")
    rows, errors = list[Mapping[str, Any]](), dict[int, DataError]()
    for number, sample in enumerate(samples):
        rows.append(sample if isinstance(sample, Mapping) else {})
        try:
            rows[number] = _check(plan, sample, number)
        except DataError as error:
            errors[number] = error.with_traceback(None)
    return rows, errors


def bad_samples(errors: Mapping[int, LatentMASError], count: int) -> DataError:
    """One error that names all bad samples of `count`."""
    if len(errors) == 1:
        return DataError(*(str(error) for error in errors.values()))
    numbers = sorted(errors)
    lines = [str(errors[number]) for number in numbers[:_TOLD]]
    if len(numbers) > _TOLD:
        lines.append(f"and samples {', '.join(map(str, numbers[_TOLD:]))}")
    return DataError(
        "\n  ".join([f"{len(errors)} of {count} samples cannot be run:", *lines])
        + '\nfix or drop them, or pass on_error="keep" to run the others'
    )


def _check(plan: Plan, sample: Sample, row: int) -> Mapping[str, Any]:
    inputs = plan.graph.inputs
    if isinstance(sample, str):
        if len(inputs) != 1:
            wanted = ", ".join(inputs) or "none"
            raise DataError(f"sample {row} is a string, but the graph's inputs are: {wanted}")
        sample = {inputs[0]: sample}
    if not isinstance(sample, Mapping):
        raise DataError(f"sample {row} is {type(sample).__name__}; give a string or a mapping")
    for name in inputs:
        problem = field_problem(f"sample {row}", sample, name, null=False)
        if problem is not None:
            raise DataError(problem)
        if not is_unicode(sample[name]):
            raise DataError(
                f"sample {row}, field {name!r}: {sample[name]!r:.60} is not Unicode: half of a "
                "surrogate pair is in it; read the text as UTF-8"
            )
    return sample


# --- prompts ----------------------------------------------------------------------------------


class _Prompt(NamedTuple):
    """A prompt that is known before the run: it holds no text that an agent or function writes."""

    agent: str
    constants: dict[str, str]
    """Slot → text that is the same for all samples."""
    sizes: dict[str, int]
    """Slot → rows of the message in it."""
    room: int
    """Positions needed after it."""


def check_prompts(
    system: System, plan: Plan, samples: Mapping[int, Mapping[str, Any]], *, edited: bool
) -> dict[int, DataError]:
    """Render and measure each sample's prompts, as far as they are known before the run.

    Args:
        system: whose backbones and tokenizers.
        plan: what is to run.
        samples: mappings of input fields, by number.
        edited: whether messages and texts are replaced on their way.

    Returns:
        Errors of the samples whose prompts cannot be rendered, are empty, or are longer than a
        backbone's positions.
    """
    errors: dict[int, DataError] = {}
    for prompt in _known_prompts(plan, edited=edited):
        for number, sample in samples.items():
            if number in errors:
                continue
            try:
                _check_prompt(system, plan, prompt, sample)
            except (DataError, TemplateError) as error:
                errors[number] = DataError(f"sample {number}: {error}")
    return errors


def _check_prompt(system: System, plan: Plan, prompt: _Prompt, sample: Mapping[str, Any]) -> None:
    agent, backbone = plan.graph.agent(prompt.agent), system.backbone_of(prompt.agent)
    scope = {name: sample[name] for name in plan.graph.inputs} | prompt.constants
    tools = tool_schemas(agent, system.tools)
    length = prompt_ids(backbone, agent, [scope], prompt.sizes, tools).shape[1]
    check_length(backbone, agent, length, prompt.room)


def _known_prompts(plan: Plan, *, edited: bool) -> Iterator[_Prompt]:
    """Each different prompt of the plan once. Rounds repeat themselves, so these are few."""
    rows = latent_rows(plan.steps)
    constants = {source.name: source.text for source in plan.graph.text_sources}
    seen: dict[tuple[str, tuple[str, ...]], int] = {}
    for step in plan.steps:
        if not isinstance(step, Rollout | Decode):
            continue
        room = step.latent_steps if isinstance(step, Rollout) else 1
        key = (step.agent, tuple(sorted(step.inputs)))
        messages = {slot: rows[name] for slot, name in step.inputs.items() if name in rows}
        texts = {s: constants.get(n) for s, n in step.inputs.items() if s not in messages}
        if None in texts.values() or (edited and texts) or seen.get(key, -1) >= room:
            continue
        seen[key] = room
        yield _Prompt(
            step.agent,
            {slot: text for slot, text in texts.items() if text is not None},
            # an edit may change the number of rows: the least is sure
            dict.fromkeys(messages, 0) if edited else messages,
            room,
        )
