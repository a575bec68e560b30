"""Text decoding and latent steps of a real model, against transformers and against the products.

    python benchmarks/decode.py [--source MODEL] [--dtypes float32,bfloat16] [--rows 1,4]
        [--tokens N] [--repeats N] [--threads N] [--tiny] [--json]

`decode` is greedy text: tokens of `system.run` on one agent and of `generate` of transformers on a
model of its own, in CPU seconds a token. Prompts are read by both. `step` is one latent step
without a link: fused, through the model's modules, and its `products`, the matrix products of the
decoder alone. All in one process, interleaved; medians, and ratios of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM
from transformers.utils import logging

import latentmas as lm
from latentmas.backbones import KVCache, LoadedBackbone
from latentmas.demo.real import SMOLLM2
from latentmas.environment import hardware
from latentmas.testing import tiny_backbone

PROMPT = "Write a long story about a lighthouse keeper, number {}."
WARM_UP, STEPS = 1, 8


def measure(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """Median CPU seconds of each way; they take turns."""
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(WARM_UP + repeats):
        for name, way in ways.items():
            began = time.process_time()
            way()
            if turn >= WARM_UP:
                taken[name].append(time.process_time() - began)
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def decode(system: lm.System, model: Any, rows: int, tokens: int, repeats: int) -> dict[str, Any]:
    """CPU milliseconds a token of both, and whether they write the same."""
    backbone = system.backbone_of("writer")
    tokenizer, samples = backbone.tokenizer, [PROMPT.format(i) for i in range(rows)]
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        for text in samples
    ]
    tokenizer.padding_side = "left"
    inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    length = inputs.input_ids.shape[1]

    def ours() -> list[list[int]]:
        result = system.run(samples, max_new_tokens=tokens, batch_size=rows)
        return [list(ids) for ids in result.token_ids]

    def theirs() -> list[list[int]]:
        written = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        return [row[length:].tolist() for row in written]

    own, other = ours(), theirs()
    common = sum(
        a == b for x, y in zip(own, other, strict=True) for a, b in zip(x, y, strict=False)
    )
    seconds = measure({"latentmas": ours, "transformers": theirs}, repeats)
    most = max(map(len, own))
    found = {name: 1e3 * value / most for name, value in seconds.items()}
    return {
        "rows": rows,
        "tokens": most,
        "equal_tokens": common / sum(map(len, own)),
        "ms_a_token": found,
        "ratio": found["transformers"] / found["latentmas"],
    }


def step(backbone: LoadedBackbone, rows: int, repeats: int) -> dict[str, Any]:
    """CPU milliseconds of a latent step after a prompt of 64 positions, and of its products."""
    ids = torch.randint(4, 250, (rows, 64))
    x_BTD, one_BL = backbone.embed(ids), torch.ones(rows, 64 + 1, dtype=torch.long)
    place_B1, x_B1D = torch.full((rows, 1), 64), x_BTD[:, :1]
    decoder = backbone.family.decoder(backbone.model)
    layers = [module for module in decoder.modules() if isinstance(module, torch.nn.Linear)]
    inputs = {x.in_features: torch.ones(rows, x.in_features, dtype=backbone.dtype) for x in layers}

    def stepping(run: Callable[..., Tensor]) -> Callable[[], None]:
        state = KVCache(backbone)
        state.reserve(64 + 1)
        run(x_BTD, torch.arange(64).expand(rows, 64), one_BL[:, :64], state, padded=False)
        kept = state.snapshot()

        def way() -> None:
            for _ in range(STEPS):
                state.restore(kept)
                run(x_B1D, place_B1, one_BL, state, padded=False)

        return way

    def products() -> None:
        for _ in range(STEPS):
            for layer in layers:
                layer(inputs[layer.in_features])

    ways = {"fused": stepping(backbone.step), "modules": stepping(backbone.run_modules)}
    with torch.no_grad():
        seconds = measure(ways | {"products": products}, repeats)
    found = {name: 1e3 * value / STEPS for name, value in seconds.items()}
    reason = backbone.fused if isinstance(backbone.fused, str) else None
    return {
        "rows": rows,
        "ms": found,
        "modules_over_fused": found["modules"] / found["fused"],
        "fused_over_products": found["fused"] / found["products"],
        "not_fused": reason,
    }


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", default=SMOLLM2, help="a model: folder, hub id or GGUF file")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--rows", default="1,4", help="rows B that write together")
    parser.add_argument("--tokens", type=int, default=48)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tiny", action="store_true", help="a small model, to see that it works")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    logging.disable_progress_bar()
    source = tiny_backbone("llama", 32).source if given.tiny else given.source
    lines = []
    for dtype in given.dtypes.split(","):
        graph = lm.Graph("one", inputs=["question"], rounds=1)
        graph.add_agent("writer", lm.Backbone(source, dtype=dtype), prompt="{{ question }}")
        system = graph.output("writer").compile().load()
        backbone = system.backbone_of("writer")
        model = AutoModelForCausalLM.from_pretrained(
            backbone.model.config.name_or_path, dtype=getattr(torch, dtype)
        ).eval()
        for rows in map(int, given.rows.split(",")):
            lines.append(
                {
                    "dtype": dtype,
                    "decode": decode(system, model, rows, given.tokens, given.repeats),
                    "step": step(backbone, rows, given.repeats),
                }
            )
            if not given.json:
                show(lines[-1])
    machine = {key: hardware()[key] for key in ("processor", "cores", "threads")}
    if given.json:
        print(json.dumps({"hardware": machine, "source": source, "lines": lines}, indent=1))


def show(line: dict[str, Any]) -> None:
    """One line of the table."""
    text, latent = line["decode"], line["step"]
    print(
        f"{line['dtype']} B={text['rows']}: {text['ms_a_token']['latentmas']:.1f} ms a token, "
        f"transformers {text['ratio']:.2f}x, {100 * text['equal_tokens']:.0f} % equal; step "
        f"{latent['ms']['fused']:.1f} ms, modules {latent['modules_over_fused']:.2f}x, "
        f"{latent['fused_over_products']:.2f}x its products",
        flush=True,
    )


if __name__ == "__main__":
    main()
