"""Options that spread models over devices, for every command that loads a team."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from latentmas.cli.support.options import pairs

__all__ = ["DeviceMap", "MaxMemory", "places", "spreads", "takes_device_map", "use_device_map"]

DeviceMap = Annotated[
    list[str] | None,
    typer.Option(
        "--device-map",
        metavar="STRATEGY",
        help="Spread each model's layers over all devices (auto, balanced, balanced_low_0 or "
        "sequential); agent=STRATEGY for one agent; may be repeated.",
    ),
]
MaxMemory = Annotated[
    list[str] | None,
    typer.Option(
        "--max-memory",
        metavar="DEVICE=SIZE",
        help="Memory that --device-map may use, such as 0=20GiB or cpu=64GiB; may be repeated.",
    ),
]
Command = Callable[..., None]
_chosen: dict[str, Any] = {}
"""Arguments of loading that the current command was given."""


def use_device_map(device: str, device_map: list[str] | None, max_memory: list[str] | None) -> None:
    """Have `places` return these options from now on.

    Raises:
        typer.BadParameter: They do not go together.
    """
    _chosen.clear()
    if not device_map:
        if max_memory:
            raise typer.BadParameter("--max-memory requires --device-map")
        return
    named = [text for text in device_map if "=" in text]
    if (named and len(named) < len(device_map)) or (len(device_map) > 1 and not named):
        raise typer.BadParameter("--device-map takes one STRATEGY, or agent=STRATEGY several times")
    if device != "cpu" and not named:
        raise typer.BadParameter("--device-map chooses the devices; leave out --device")
    _chosen["device_map"] = pairs("--device-map", named) if named else device_map[0]
    if max_memory:
        sizes = pairs("--max-memory", max_memory)
        _chosen["max_memory"] = {int(n) if n.isdecimal() else n: v for n, v in sizes.items()}


def spreads() -> bool:
    """Whether models are spread over devices."""
    return "device_map" in _chosen


def places(device: str, agents: list[str]) -> dict[str, Any]:
    """Arguments of loading that say where the models of agents go.

    Args:
        device: The option `--device`.
        agents: Names of all agents; empty for a saved team, whose agents are not known yet.

    Raises:
        typer.BadParameter: A saved team is given devices for some agents and another for the rest.
    """
    where = _chosen.get("device_map")
    if where is None:
        return {"device": device}
    if isinstance(where, dict) and not agents and device != "cpu":
        raise typer.BadParameter(
            "--device-map for single agents of a saved team leaves the others on the CPU; leave "
            "out --device, or name every agent"
        )
    rest = [name for name in agents if name not in where] if isinstance(where, dict) else []
    return {"device": dict.fromkeys(rest, device) or None, **_chosen}


def takes_device_map(command: Command) -> Command:
    """Decorator: the command has both options, after its option `device`."""
    signature = inspect.signature(command, eval_str=True)
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=kind, default=None)
        for name, kind in (("device_map", DeviceMap), ("max_memory", MaxMemory))
    ]

    @functools.wraps(command)
    def wrapped(**given: Any) -> None:
        asked = given.pop("device_map"), given.pop("max_memory")
        use_device_map(given["device"], *asked)
        command(**given)

    parameters: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        parameters += [parameter, *added] if parameter.name == "device" else [parameter]
    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    wrapped.__annotations__ = {p.name: p.annotation for p in parameters}
    return wrapped
