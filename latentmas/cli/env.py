"""The command for bug reports: env."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from latentmas.cli._console import emit, emit_json
from latentmas.cli._options import Json

__all__ = ["env"]

PACKAGES = (
    *("torch", "transformers", "accelerate", "safetensors", "huggingface_hub", "tokenizers"),
    *("pydantic", "networkx", "jinja2", "rich", "typer"),
)


def env(json: Json = False) -> None:
    """Print versions, devices and platform, for bug reports."""
    facts = _facts()
    if json:
        emit_json(facts)
        return
    packages = facts.pop("packages")
    for name, value in (facts | packages).items():
        shown = ", ".join(map(str, value)) if isinstance(value, list) else value or "-"
        emit(f"{name:<16} {shown}")


def _facts() -> dict[str, Any]:
    from latentmas import __version__

    return {
        "latentmas": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        **_torch_facts(),
        "packages": {name: _version(name) for name in PACKAGES},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _torch_facts() -> dict[str, Any]:
    """Devices and threads; a broken torch is a fact too."""
    try:
        import torch
    except (ImportError, OSError) as error:
        return {"devices": [], "threads": None, "torch_error": str(error)}
    devices = ["cpu"]
    for i in range(torch.cuda.device_count()):
        devices.append(f"cuda:{i} ({torch.cuda.get_device_name(i)})")
    if torch.backends.mps.is_available():
        devices.append("mps")
    return {"devices": devices, "cuda": torch.version.cuda, "threads": torch.get_num_threads()}
