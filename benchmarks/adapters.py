"""LoRA adapters on a real model: memory of two agents, steps of training, the LoRA baseline.

    python benchmarks/adapters.py [--steps 10] [--output FILE] [--tiny]

On SmolLM2-135M-Instruct in float32, one thread. A LoRA adapter is trained by PEFT alone and saved;
the reader of the relay takes it as `adapter=`, while the answerer runs on the model itself. Then
the team's links learn, then links and adapters of both agents, and last a single agent with an
adapter and no links: the LoRA baseline. For memory, two agents run on two adapters. Sizes count
every tensor once; PEFT trains in other processes, so that RSS is that of one model, and then of the
team beside it. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from transformers.utils import logging

import latentmas as lm
from latentmas.backbones import resolve_source
from latentmas.demo.real import ANSWERS, READ, SMOLLM2
from latentmas.demo.relay import make_rows
from latentmas.environment import hardware, versions
from latentmas.testing import tiny_backbone
from latentmas.training.losses.outer import OuterLoss

LORA = {"r": 8, "alpha": 16, "target_modules": ["q_proj", "v_proj"]}


def rss() -> int:
    """Bytes that the process holds in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def relay(reader: lm.Backbone, answerer: lm.Backbone) -> lm.Graph:
    """The reader sees the passage, the answerer the question and the reader's message."""
    graph = lm.Graph("relay", inputs=["passage", "question"], rounds=1, latent_steps=8)
    graph.add_agent("reader", reader, prompt=READ)
    graph.add_agent("answerer", answerer, prompt=ANSWERS["team"], max_new_tokens=8)
    graph.connect("reader", "answerer.note")
    graph.output("answerer")
    return graph


def alone(backbone: lm.Backbone) -> lm.Graph:
    """One agent that sees everything."""
    graph = lm.Graph("alone", inputs=["passage", "question"], rounds=1, latent_steps=1)
    prompt = "{{ passage }}\n{{ question }} Answer with one word."
    graph.add_agent("answerer", backbone, prompt=prompt, max_new_tokens=8)
    graph.output("answerer")
    return graph


def peft_adapter(source: str, folder: str, seed: int, steps: int) -> list[float]:
    """Train an adapter with PEFT alone, on passages as plain text; returns its losses."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.manual_seed(seed)
    torch.set_num_threads(1)
    tokenizer = AutoTokenizer.from_pretrained(source)
    model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    fields = {"r": 8, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **fields))
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=5e-4)
    rows, losses = make_rows(4 * steps, facts=1, seed=seed), []
    for step in range(steps):
        texts = [row["passage"] for row in rows[4 * step : 4 * step + 4]]
        ids = tokenizer(texts, return_tensors="pt", padding=True)
        labels = ids.input_ids.masked_fill(ids.attention_mask == 0, -100)
        loss = model(**ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(round(float(loss.detach()), 3))
    model.save_pretrained(folder)
    return losses


def tensors(system: lm.System) -> dict[str, int]:
    """Bytes of the base, of declared adapters and of what learns; each tensor counts once."""
    models = [backbone.model for backbone in system.agent_backbones.values()]
    named = {id(p): (n, p) for m in models for n, p in m.named_parameters()}
    adapters = sum(p.nbytes for name, p in named.values() if "lora_" in name)
    own = sum(p.nbytes for p in system.adapters.parameters())
    return {
        "base": sum(p.nbytes for _, p in named.values()) - adapters,
        "declared_adapters": adapters - own,
        "own_adapters": own,
        "links": sum(p.nbytes for p in system.links.parameters()),
    }


def trained(system: lm.System, rows: list[dict[str, Any]], steps: int, **options: Any) -> Any:
    """Losses of a few steps, CPU seconds of each, and the loss on held-out rows around them."""
    base = {"max_steps": steps, "per_device_train_batch_size": 4, "logging_steps": 1}
    base |= {"use_cpu": True, "probe_stability": False, "save_strategy": "no", "progress": False}
    with tempfile.TemporaryDirectory() as folder:
        config = lm.OuterConfig(folder, warmup_steps=steps // 3, **(base | options))
        trainer = lm.OuterTrainer(system, config, train_dataset=rows)
        held_out = [unseen(system)]
        began = time.process_time()
        trainer.train()
        seconds = (time.process_time() - began) / steps
    held_out.append(unseen(system))
    losses = [round(entry["loss"], 3) for entry in trainer.state.log_history if "loss" in entry]
    return {"losses": losses, "held_out": held_out, "cpu_seconds_per_step": round(seconds, 2)}


@torch.no_grad()
def unseen(system: lm.System) -> float:
    """Loss of the answers to 16 questions that are not trained on."""
    rows = make_rows(16, facts=1, seed=99)
    return round(float(OuterLoss(system, system.plan)(rows)["loss"]), 3)


def measure(backbone: lm.Backbone, steps: int) -> dict[str, Any]:
    """All figures."""
    rows = make_rows(64, facts=1, seed=0)
    found: dict[str, Any] = {"source": backbone.source, "steps": steps, "rss_start": rss()}
    single = alone(backbone).compile().load()
    found |= {"rss_one_model": rss(), "bytes_one_model": tensors(single)}
    with tempfile.TemporaryDirectory() as folder:
        one, two = str(Path(folder) / "one"), str(Path(folder) / "two")
        path = single.backbone_of("answerer").model.config._name_or_path
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
            found["peft_losses"] = [
                apart.submit(peft_adapter, path, place, seed, steps).result()
                for seed, place in enumerate((one, two))
            ]
        under = {
            place: lm.Backbone(backbone.source, dtype=backbone.dtype, adapter=place)
            for place in (one, two)
        }
        before = rss()
        system = relay(under[one], under[two]).compile().load(reuse=single)
        found["rss_added_by_two_agents"] = rss() - before
        found["bytes_two_agents"] = tensors(system)
        texts = {e: system.run(rows[:4], executor=e).texts for e in ("reference", "cached")}
        found["executors_agree"] = texts["reference"] == texts["cached"]
        team = relay(under[one], backbone).compile().load(reuse=single)
        found["links_alone"] = trained(team, rows, steps, learning_rate=5e-4)
        both = {"train_links": "outer", "train_adapters": LORA}
        rates = {"learning_rate": 5e-4, "adapter_learning_rate": 1e-3}
        found["links_and_adapters"] = trained(team, rows, steps, **both, **rates)
        found["bytes_after"] = tensors(team)
        baseline = {"train_adapters": LORA, "adapter_learning_rate": 1e-3}
        found["lora_baseline"] = trained(single, rows, steps, **baseline)
    return found


def main() -> None:
    """Run, and print or write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    real = lm.Backbone(SMOLLM2, dtype="float32")
    backbone = tiny_backbone("llama", 32) if args.tiny else real
    resolve_source(backbone.source)  # fails early where the package with the model is missing
    found = measure(backbone, args.steps)
    found |= {"versions": versions(), "hardware": hardware()}
    text = json.dumps(found, indent=1)
    if args.output:
        args.output.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
