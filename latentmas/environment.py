"""The environment of a result: package versions and hardware."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from latentmas import __version__

__all__ = ["PACKAGES", "hardware", "torch_devices", "versions"]

PACKAGES = (
    *("torch", "transformers", "accelerate", "safetensors", "huggingface_hub", "tokenizers"),
    *("pydantic", "networkx", "jinja2", "rich", "typer"),
)


def versions() -> dict[str, str | None]:
    """Versions of Python, latentmas and its dependencies; None for a missing package."""
    own: dict[str, str | None] = {"latentmas": __version__, "python": platform.python_version()}
    return own | {name: _version(name) for name in PACKAGES}


def hardware() -> dict[str, Any]:
    """Describe the machine: platform, processor, cores, threads and devices."""
    return {"platform": platform.platform(), "processor": _processor(), "cores": os.cpu_count()} | (
        torch_devices()
    )


def torch_devices() -> dict[str, Any]:
    """Devices and threads of torch; if torch cannot be imported, the error."""
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


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    """Name of the processor, from /proc/cpuinfo where it exists."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
