"""What the rows of an evaluation depend on: digests, and a file beside the results."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentmas.atomic import write_text_atomically
from latentmas.errors import DataError
from latentmas.evaluation.controls import Control
from latentmas.evaluation.graders import Grader
from latentmas.plan import RunOptions
from latentmas.runtime import System, link_digests
from latentmas.spec import canonical_json

__all__ = ["check_settings", "settings_of", "settings_path", "system_settings", "write_settings"]

WITHOUT_EFFECT = ("batch_size", "executor", "on_error", "record", "refill_threshold")
"""Options of a run that do not change what a row is answered, up to rounding."""


def settings_of(
    systems: Mapping[str, Control], options: RunOptions, grader: Grader | None
) -> dict[str, Any]:
    """Everything that answers depend on besides the rows, as plain data with a digest.

    Args:
        systems: team and controls, by name.
        options: options of the runs.
        grader: judge of the answers.
    """
    told = options.model_dump(mode="json")
    settings: dict[str, Any] = {
        "options": {name: value for name, value in told.items() if name not in WITHOUT_EFFECT},
        "systems": {name: system_settings(one.system) for name, one in systems.items()},
    }
    if any(one.shuffles for one in systems.values()):
        settings["options"]["batch_size"] = options.batch_size
    settings["digest"] = hashlib.sha256(canonical_json(settings).encode()).hexdigest()
    return settings | ({} if grader is None else {"grader": _label(grader)})


def _label(grader: Grader) -> str:
    """Name of a grader, with its options: `math(time_limit=2.0)`."""
    told = ", ".join(f"{name}={value!r}" for name, value in sorted(grader.options.items()))
    return f"{grader.name}({told})" if told else grader.name


def system_settings(system: System) -> dict[str, Any]:
    """What the answers of a system depend on: digests of its plan and links, and data types.

    Args:
        system: the system.
    """
    plan = system.plan
    return {
        "plan": plan.digest,
        "links": link_digests(system),
        "backbones": {
            agent.name: str(system.backbone_of(agent.name).dtype).removeprefix("torch.")
            for agent in plan.graph.agents
        },
    }


def settings_path(output: str | Path) -> Path:
    """Path of the settings beside a results file."""
    path = Path(output)
    return path.with_name(f"{path.name}.settings.json")


def write_settings(output: str | Path, settings: Mapping[str, Any]) -> None:
    """Write the settings beside a results file, unless it is a pipe or a device.

    Raises:
        WriteError: the file cannot be written.
    """
    if Path(output).is_file() or not Path(output).exists():
        text = json.dumps(settings, indent=1, ensure_ascii=False)
        write_text_atomically(settings_path(output), text + "\n")


def check_settings(output: str | Path, settings: Mapping[str, Any]) -> None:
    """Refuse to continue an evaluation with other settings. Other controls are accepted.

    Raises:
        DataError: the settings differ; the error names what differs.
    """
    try:
        before = json.loads(settings_path(output).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # the keys of the rows decide which of them are kept
    found = [
        f"{name} was {_short(before['options'].get(name))}, now {_short(value)}"
        for name, value in settings["options"].items()
        if name in before["options"] and before["options"][name] != value
    ]
    for name, system in settings["systems"].items():
        old = before["systems"].get(name, system)
        found += [f"{part} of {name}" for part in system if old.get(part) != system[part]]
    if before.get("grader") not in (None, settings.get("grader")):
        found.append(f"grader was {before['grader']}, now {settings['grader']}")
    if found:
        raise DataError(
            f"{str(output)!r} holds rows of another evaluation: {'; '.join(found)}. Evaluate with "
            "the same settings, or name another file"
        )


def _short(value: Any) -> str:
    return f"{value!r:.60}"
