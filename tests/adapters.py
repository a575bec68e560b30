"""LoRA adapters over tiny backbones, as PEFT saves them."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

import latentmas as lm

MODULES = ["q_proj", "v_proj", "down_proj"]


def save_lora(backbone: lm.Backbone, folder: Path, seed: int = 1, **fields: Any) -> str:
    """Train nothing: random weights that are large enough to change what the model writes."""
    model = AutoModelForCausalLM.from_pretrained(backbone.source)
    options = {"r": 4, "lora_alpha": 8, "target_modules": MODULES, "task_type": "CAUSAL_LM"}
    with warnings.catch_warnings():  # peft asks transformers for an attribute that is deprecated
        warnings.simplefilter("ignore")
        made = get_peft_model(model, LoraConfig(**(options | fields)))
    generator = torch.Generator().manual_seed(seed)
    for name, weight in made.named_parameters():
        if "lora_" in name:
            noise = torch.randn(weight.shape, generator=generator) * 0.2
            weight.data.add_(noise)
    with warnings.catch_warnings():  # peft takes the biases of LoRA layers for misshapen weights
        warnings.simplefilter("ignore")
        made.save_pretrained(str(folder))
    return str(folder)


def edit_config(folder: str, **fields: Any) -> None:
    """Change fields of an adapter's configuration."""
    path = Path(folder) / "adapter_config.json"
    write_config(folder, json.loads(path.read_text()) | fields)


def write_config(folder: str, data: Any) -> None:
    """Replace an adapter's configuration."""
    (Path(folder) / "adapter_config.json").write_text(json.dumps(data))
