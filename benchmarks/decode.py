"""Text, latent steps and prompts of a real model, against transformers and against the products.

    python benchmarks/decode.py [--source MODEL] [--dtypes float32,bfloat16] [--rows 1,4]
        [--tokens N] [--repeats N] [--threads N] [--tiny] [--json]

`decode` is greedy text, prompts included, in CPU seconds a token: `system.run` on one agent with
the executor `cached` and, where the package is installed, `openvino`; `generate` of transformers on
a model of its own; and CTranslate2, where the package is installed and has the data type on this
CPU. `step` is one latent step without a link, and `prompt` reads 128 positions a row: fused,
through the model's modules, and their `products`, the matrix products of the decoder alone. All in
one process, interleaved; medians, and ratios of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
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
WARM_UP, STEPS, LENGTH = 1, 8, 128


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


def converted(folder: str, dtype: str, threads: int, work: str) -> Any:
    """The model in CTranslate2; None without the package, or where it lacks the type here."""
    try:
        import ctranslate2
    except ImportError:
        return None
    if dtype not in ctranslate2.get_supported_compute_types("cpu"):
        return None
    ctranslate2.converters.TransformersConverter(folder).convert(work, force=True)
    return ctranslate2.Generator(work, compute_type=dtype, intra_threads=threads, inter_threads=1)


def decode(
    system: lm.System, model: Any, other: Any, rows: int, tokens: int, repeats: int
) -> dict[str, Any]:
    """CPU milliseconds a token of each, and whether they write the same as transformers."""
    backbone = system.backbone_of("writer")
    tokenizer, samples = backbone.tokenizer, [PROMPT.format(i) for i in range(rows)]
    texts: list[Any] = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": text}], tokenize=False, add_generation_prompt=True
        )
        for text in samples
    ]
    tokenizer.padding_side = "left"
    inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
    length = inputs.input_ids.shape[1]

    def ours(executor: str) -> list[list[int]]:
        options: dict[str, Any] = {
            "max_new_tokens": tokens,
            "batch_size": rows,
            "executor": executor,
        }
        return [list(ids) for ids in system.run(samples, **options).token_ids]

    def theirs() -> list[list[int]]:
        written = model.generate(**inputs, max_new_tokens=tokens, do_sample=False)
        return [row[length:].tolist() for row in written]

    pieces = [tokenizer.tokenize(text) for text in texts]

    def others() -> list[list[int]]:
        options = {"max_length": tokens, "include_prompt_in_result": False}
        written = other.generate_batch(pieces, beam_size=1, sampling_topk=1, **options)
        return [one.sequences_ids[0] for one in written]

    ways: dict[str, Callable[[], list[list[int]]]] = {
        "latentmas": partial(ours, "cached"),
        "transformers": theirs,
    }
    if find_spec("openvino") is not None:
        ways["latentmas, openvino"] = partial(ours, "openvino")
    if other is not None:
        ways["ctranslate2"] = others
    texts_of = {name: way() for name, way in ways.items()}
    seconds = measure(ways, repeats)
    most = max(map(len, texts_of["latentmas"]))
    found = {name: 1e3 * value / most for name, value in seconds.items()}
    return {
        "rows": rows,
        "tokens": most,
        "equal_tokens": {
            name: equal(ids, texts_of["transformers"]) for name, ids in texts_of.items()
        },
        "ms_a_token": found,
        "over_latentmas": {name: value / found["latentmas"] for name, value in found.items()},
    }


def equal(found: list[list[int]], wanted: list[list[int]]) -> float:
    """Share of tokens that are equal, place by place."""
    pairs = [zip(a, b, strict=False) for a, b in zip(found, wanted, strict=True)]
    return sum(a == b for pair in pairs for a, b in pair) / sum(map(len, found))


def step(backbone: LoadedBackbone, rows: int, repeats: int) -> dict[str, Any]:
    """A latent step after a prompt of 64 positions."""
    x_BTD, one_BL = random_prompt(backbone, rows, 64), torch.ones(rows, 64 + 1, dtype=torch.long)
    place_B1, x_B1D = torch.full((rows, 1), 64), x_BTD[:, :1]

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

    return {"rows": rows, **over_products(backbone, stepping, rows, STEPS, repeats)}


def prompt(backbone: LoadedBackbone, rows: int, repeats: int) -> dict[str, Any]:
    """A prompt of 128 positions a row."""
    x_BTD, one_BL = random_prompt(backbone, rows, LENGTH), torch.ones(rows, LENGTH).long()
    places_BT = torch.arange(LENGTH).expand(rows, LENGTH)

    def reading(run: Callable[..., Tensor]) -> Callable[[], None]:
        def way() -> None:
            run(x_BTD, places_BT, one_BL, KVCache(backbone), padded=False, last=True)

        return way

    return {"rows": rows, **over_products(backbone, reading, rows * LENGTH, 1, repeats)}


def random_prompt(backbone: LoadedBackbone, rows: int, length: int) -> Tensor:
    """Embeddings of random tokens, (B, T, D)."""
    return backbone.embed(torch.randint(4, 250, (rows, length)))


@torch.no_grad()
def over_products(
    backbone: LoadedBackbone,
    way_of: Callable[[Callable[..., Tensor]], Callable[[], None]],
    positions: int,
    times: int,
    repeats: int,
) -> dict[str, Any]:
    """CPU milliseconds of the fused decoder, the modules, and their matrix products alone.

    Args:
        backbone: Runs them.
        way_of: Makes what is measured of the function that runs the decoder.
        positions: Positions of all rows.
        times: How often the decoder runs in it.
        repeats: How often it is measured.
    """
    decoder = backbone.family.decoder(backbone.model)
    layers = [module for module in decoder.modules() if isinstance(module, torch.nn.Linear)]
    kind = backbone.dtype
    inputs = {x.in_features: torch.ones(positions, x.in_features, dtype=kind) for x in layers}

    def products() -> None:
        for _ in range(times):
            for layer in layers:
                layer(inputs[layer.in_features])

    ways = {"fused": way_of(backbone.step), "modules": way_of(backbone.run_modules)}
    seconds = measure(ways | {"products": products}, repeats)
    found = {name: 1e3 * value / times for name, value in seconds.items()}
    reason = backbone.fused if isinstance(backbone.fused, str) else None
    return {
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
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--tiny", action="store_true", help="a small model, to see that it works")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    logging.disable_progress_bar()
    source = tiny_backbone("llama", 32).source if given.tiny else given.source
    with tempfile.TemporaryDirectory() as work:
        lines = run(given, source, work)
    machine = {key: hardware()[key] for key in ("processor", "cores", "threads")}
    if given.json:
        print(json.dumps({"hardware": machine, "source": source, "lines": lines}, indent=1))


def run(given: argparse.Namespace, source: str, work: str) -> list[dict[str, Any]]:
    """Measure each type and number of rows."""
    lines = []
    for dtype in given.dtypes.split(","):
        graph = lm.Graph("one", inputs=["question"], rounds=1)
        graph.add_agent("writer", lm.Backbone(source, dtype=dtype), prompt="{{ question }}")
        system = graph.output("writer").compile().load()
        backbone = system.backbone_of("writer")
        folder = backbone.model.config.name_or_path
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
        other = converted(folder, dtype, given.threads, f"{work}/{dtype}")
        for rows in map(int, given.rows.split(",")):
            lines.append(
                {
                    "dtype": dtype,
                    "decode": decode(system, model, other, rows, given.tokens, given.repeats),
                    "step": step(backbone, rows, given.repeats),
                    "prompt": prompt(backbone, rows, given.repeats),
                }
            )
            if not given.json:
                show(lines[-1])
    return lines


def show(line: dict[str, Any]) -> None:
    """One line of the table."""
    text, latent, read = line["decode"], line["step"], line["prompt"]
    others = ", ".join(
        f"{name} {ratio:.2f}x ({100 * text['equal_tokens'][name]:.0f} % equal)"
        for name, ratio in text["over_latentmas"].items()
    )
    print(
        f"{line['dtype']} B={text['rows']}: {text['ms_a_token']['latentmas']:.1f} ms a token, "
        f"{others}; step {latent['ms']['fused']:.1f} ms, modules "
        f"{latent['modules_over_fused']:.2f}x, {latent['fused_over_products']:.2f}x its products; "
        f"prompt {read['ms']['fused']:.0f} ms, modules {read['modules_over_fused']:.2f}x, "
        f"{read['fused_over_products']:.2f}x its products",
        flush=True,
    )


if __name__ == "__main__":
    main()
