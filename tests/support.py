"""What works for which family: each cell of the support matrix is a run of a tiny model."""

from __future__ import annotations

import re
import shutil
import tempfile
import warnings
from collections.abc import Callable
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM

import latentmas as lm
from latentmas.backbones import check_tensor_parallel, read_info
from latentmas.plan import PlanBackbone
from latentmas.testing import TINY_FAMILIES, tiny_backbone
from tests.gguf_files import ARCHITECTURES, write_gguf
from tests.image_text import PLAIN_TYPES, write_pair
from tests.teams import tiny

PAGE = Path(__file__).parent.parent / "docs" / "support.md"
YES = "yes"
NOT_TRIED = "not tried"
SIZES = {"num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32}
OTHERS: dict[str, dict[str, Any]] = {
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512},
    "gpt_neox": SIZES | {"intermediate_size": 64},
    "granite": SIZES | {"intermediate_size": 64, "num_key_value_heads": 2},
    "olmo2": SIZES | {"intermediate_size": 64, "num_key_value_heads": 2},
    "phi": SIZES | {"intermediate_size": 64},
    "phi3": SIZES | {"intermediate_size": 64, "num_key_value_heads": 2},
    "smollm3": SIZES | {"intermediate_size": 64, "num_key_value_heads": 2},
}
"""Decoders without code of their own here, and their sizes."""
FAMILIES = (*TINY_FAMILIES, *OTHERS, *PLAIN_TYPES)
QUESTIONS = ["What is 3 + 4?", "x"]


@cache
def folder_of(family: str) -> str:
    """Folder of a tiny model of the family."""
    if family in TINY_FAMILIES:
        return tiny(family, 32).source
    folder = Path(tempfile.mkdtemp(prefix=f"latentmas-{family}-"))
    if family in PLAIN_TYPES:
        return str(write_pair(family, folder)[0])
    shutil.copytree(tiny("llama", 32).source, folder, dirs_exist_ok=True)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    ids = {"vocab_size": 260, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
    config = AutoConfig.for_model(family, **ids, **OTHERS[family], initializer_range=0.12)
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config, dtype=torch.float32).save_pretrained(folder)
    return str(folder)


class NotTriedError(Exception):
    """A cell that no check can run."""


def system_of(family: str, **fields: Any) -> lm.System:
    """A team of two agents with feedback on the family's model."""
    backbone = lm.Backbone(**{"source": folder_of(family)} | fields)
    graph = lm.Graph("pair", inputs=["question"], rounds=2, latent_steps=2)
    graph.add_agent("one", backbone, prompt="{% if back %}{{ back }}{% endif %}{{ question }}")
    graph.add_agent("two", backbone, prompt="{{ one }} {{ question }}", max_new_tokens=3)
    graph.connect("one", "two", link="recursive")
    graph.feedback("two", "one.back", link="recursive")
    return graph.output("two").compile().load()


Messages = dict[str, torch.Tensor]


def messages(system: lm.System, executor: str) -> Messages:
    """What agents hand on."""
    return system.run(QUESTIONS, executor=executor, record=("messages",)).messages


def agree(
    system: lm.System, executor: str, tolerance: float, wanted: Messages | None = None
) -> None:
    """Compare an executor's messages with those of the oracle."""
    wanted, found = wanted or messages(system, "reference"), messages(system, executor)
    for name, message in wanted.items():
        difference = (found[name] - message).abs().max() / message.abs().max()
        assert difference < tolerance, f"messages differ by {float(difference):.2g}"


@lru_cache(maxsize=1)
def in_fp32(family: str) -> tuple[lm.System, Messages]:
    """A team that several checks leave as it is, and what the oracle says."""
    system = system_of(family, dtype="float32")
    return system, messages(system, "reference")


def _in_fp32(family: str) -> None:
    system, wanted = in_fp32(family)
    agree(system, "cached", 1e-3, wanted)


def _in_bf16(family: str) -> None:
    agree(system_of(family, dtype="bfloat16"), "cached", 0.05)


def _quantised(kind: str) -> Callable[[str], None]:
    def check(family: str) -> None:
        system = system_of(family, dtype="float32", quantization=kind)
        assert system.backbone_of("one").quantized
        agree(system, "cached", 1e-2)

    return check


def _of_gguf(family: str) -> None:
    if family not in ARCHITECTURES:
        raise NotTriedError
    folder = Path(tempfile.mkdtemp(prefix="latentmas-gguf-"))
    head = {"head_dim": 128} if family == "qwen3" else {}  # its files do not state another
    source = tiny_backbone(family, 32, initializer_range=0.12, **head).source
    path = write_gguf(family, Path(source), folder / f"{family}.gguf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LATENTMAS_CACHE", str(folder))
        agree(system_of(family, source=str(path), dtype="float32"), "cached", 1e-3)


def _with_adapter(family: str) -> None:
    system = system_of(family, dtype="float32")
    plain = system.run(QUESTIONS, record=("messages",)).messages
    system.add_adapter("one", lm.LoRA(r=2))
    generator = torch.Generator().manual_seed(0)
    for name, weight in system.adapters.named_parameters():
        if "lora_B" in name or "lora_embedding_B" in name:
            weight.data.normal_(std=0.1, generator=generator)
    agree(system, "cached", 1e-3)
    found = system.run(QUESTIONS, record=("messages",)).messages
    assert any(not torch.allclose(found[name], plain[name]) for name in plain), "no effect"


def _in_two_parts(family: str) -> None:
    backbone = lm.Backbone(folder_of(family))
    check_tensor_parallel(PlanBackbone(spec=backbone, info=read_info(backbone), agents=("a",)), 2)


def _static(family: str) -> None:
    system, wanted = in_fp32(family)
    agree(system, "static", 1e-3, wanted)


def _training(family: str) -> None:
    system = system_of(family, dtype="float32")
    before = {name: tensor.clone() for name, tensor in system.link_state().items()}
    rows = [{"question": "3 + 4?", "answer": "7"}, {"question": "x", "answer": "y"}]
    with tempfile.TemporaryDirectory() as folder:
        config = lm.OuterConfig(folder, max_steps=2, use_cpu=True, probe_stability=False)
        lm.OuterTrainer(system, config, train_dataset=rows).train()
    changed = [n for n, tensor in system.link_state().items() if not torch.equal(tensor, before[n])]
    assert changed, "no link has changed"


COLUMNS: dict[str, tuple[Callable[[str], None], str | None]] = {
    "fp32": (_in_fp32, None),
    "bf16": (_in_bf16, None),
    "int8 (torchao)": (_quantised("torchao:int8_weight_only"), "torchao"),
    "4-bit (bitsandbytes)": (_quantised("bitsandbytes:nf4"), "bitsandbytes"),
    "GGUF": (_of_gguf, "gguf"),
    "adapter": (_with_adapter, "peft"),
    "tensor parallel": (_in_two_parts, None),
    "static executor": (_static, None),
    "training": (_training, None),
}
"""Column → its check, which raises if the cell is not supported, and the library that it needs."""


def can_check(column: str) -> bool:
    """Whether the library that a column needs is installed."""
    library = COLUMNS[column][1]
    return library is None or find_spec(library) is not None


def cell(family: str, column: str) -> str:
    """`yes`, `not tried`, or the reason why not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries, about casts and their own old code
        try:
            COLUMNS[column][0](family)
        except NotTriedError:
            return NOT_TRIED
        except lm.GraphError as error:
            return _short(error.problems[0].message)
        except (lm.LatentMASError, AssertionError) as error:
            return _short(str(error))
    return YES


def _short(reason: str) -> str:
    """A reason without the folder of the model and without what follows a semicolon."""
    reason = re.sub(r"backbone '[^']*'( \([^)]*\))?", "it", reason.split("\n")[0])
    return reason.partition(";")[0].strip().rstrip(":")


def committed() -> dict[tuple[str, str], str]:
    """The cells of the committed page; reasons are looked up in its notes."""
    text = PAGE.read_text(encoding="utf-8")
    notes = dict(re.findall(r"^(\d+)\. (.*)$", text, re.MULTILINE))
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    head, found = rows[0], {}
    for row in rows[1:]:
        if not row[0].startswith("`") or row == head:
            continue
        for name, value in zip(head[1:], row[1:], strict=True):
            number = re.fullmatch(r"no \((\d+)\)", value)
            found[row[0].strip("`"), name] = notes[number[1]] if number else value
    return found
