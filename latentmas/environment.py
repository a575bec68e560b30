"""What a result was made with: versions of packages, and the machine."""

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
    """Python's, this package's and those of the packages below it; None for one that is absent."""
    own: dict[str, str | None] = {"latentmas": __version__, "python": platform.python_version()}
    return own | {name: _version(name) for name in PACKAGES}


def hardware() -> dict[str, Any]:
    """The machine: platform, processor, cores, threads, devices."""
    return {"platform": platform.platform(), "processor": _processor(), "cores": os.cpu_count()} | (
        torch_devices()
    )


def torch_devices() -> dict[str, Any]:
    """Devices and threads of torch; that it is broken is a fact too."""
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
    """The processor's name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
