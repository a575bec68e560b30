"""The command for bug reports: env."""

from __future__ import annotations

import platform
from typing import Any

from latentmas.cli.support.console import emit, emit_json
from latentmas.cli.support.options import Json
from latentmas.environment import torch_devices, versions
from latentmas.tools import sandbox_facts

__all__ = ["env"]


def env(json: Json = False) -> None:
    """Print versions, devices, platform and sandbox facts for bug reports."""
    facts = _facts()
    if json:
        emit_json(facts)
        return
    packages = facts.pop("packages")
    sandbox = {f"sandbox {name}": value for name, value in facts.pop("sandbox").items()}
    for name, value in (facts | sandbox | packages).items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value or "-"
        emit(f"{name:<16} {shown}")


def _facts() -> dict[str, Any]:
    packages = versions()
    return {
        "latentmas": packages.pop("latentmas"),
        "python": packages.pop("python"),
        "platform": platform.platform(),
        **torch_devices(),
        "sandbox": sandbox_facts(),
        "packages": packages,
    }
