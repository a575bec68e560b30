"""Whether rounds help real models: a task that needs a feedback edge, on SmolLM2.

    python benchmarks/rounds_real.py [--tiny] [--json FILE] [--work DIR] [--seed N] [--only a,b]

The reader sees six facts about one person and sends at most 8 latents, about one fact's worth. The
answerer alone sees the question; its latents of one round reach the reader in the next. So in round
1 the reader cannot know which fact is wanted, and from round 2 on it can, if the feedback says so.

Each measurement is one line of JSON in `DIR/lines-SEED.jsonl`; trained links and checkpoints lie
beside it, and a run that was stopped goes on where it was. `--json` writes all lines of DIR as one
file.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

import latentmas as lm
from latentmas.demo.asking import ANSWERER, asking_team, correct, make_rows
from latentmas.demo.real import SMOLLM2
from latentmas.environment import hardware
from latentmas.evaluation.intervals import wilson
from latentmas.testing import tiny_backbone

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.results_file import append_line, read_lines

Row = dict[str, Any]
Edit = Callable[[str, Tensor], Tensor]


@dataclass(frozen=True)
class Lesson:
    """How a team is trained: from which team on, through how many rounds, on how many facts."""

    start: str | None
    rounds: int = 1
    facts: int = 6
    steps: int = 30
    batch: int = 8
    rate: float = 5e-4


LESSONS = {
    "stem": Lesson(None, steps=60, batch=16, rate=1e-3),
    "read": Lesson("stem", facts=1, batch=16, rate=1e-3),
    "once": Lesson("read"),
    "twice": Lesson("read", rounds=2),
    "thrice": Lesson("read", rounds=3),
}
"""Training by name of the team that comes out. `stem` learns to begin with the question, `read` to
answer from the message, which with one fact always says the answer."""


@dataclass(frozen=True)
class Sizes:
    """Of the experiment."""

    facts: int = 6
    latent_steps: int = 8
    """K of the reader."""
    asks: int = 5
    """K of the answerer: most of a question, and seldom a guess at the answer."""
    train_rows: int = 640
    heldout: int = 128
    max_new_tokens: int = 16


TINY = Sizes(train_rows=8, heldout=4, max_new_tokens=4)


class Bench:
    """One seed: what is measured, with everything that was found kept on disk."""

    def __init__(
        self, sizes: Sizes, folder: Path, seed: int, depths: list[int], tiny: bool
    ) -> None:
        self.sizes, self.seed, self.depths, self.tiny = sizes, seed, depths, tiny
        self.folder = folder / f"seed-{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lines = folder / f"lines-{seed}.jsonl"
        self.backbone = (
            tiny_backbone("llama", 32) if tiny else lm.Backbone(SMOLLM2, dtype="float32")
        )
        self.untrained = self._graph().compile().load(seed=seed)
        draw = random.Random(seed)
        self.rows = list(make_rows(sizes.train_rows, draw, sizes.facts))
        seen = {row["passage"] for row in self.rows}
        more = make_rows(2 * sizes.heldout, draw, sizes.facts)
        self.heldout = [row for row in more if row["passage"] not in seen][: sizes.heldout]
        self._loaded: dict[str, lm.System] = {}

    def _graph(self, apart: bool = False) -> lm.Graph:
        sizes = self.sizes
        return asking_team(
            self.backbone,
            latent_steps=sizes.latent_steps,
            asks=sizes.asks,
            max_new_tokens=sizes.max_new_tokens,
            apart=apart,
        )

    def measure(
        self,
        name: str,
        system: Callable[[], lm.System],
        rounds: int = 1,
        control: str = "none",
        edit: Edit | None = None,
    ) -> None:
        """Accuracy on the held-out questions, one line; nothing where the line is there."""
        key = {"seed": self.seed, "system": name, "rounds": rounds, "control": control}
        key |= {"n": len(self.heldout), "asks": self.sizes.asks}
        if any(key.items() <= line.items() for line in read_lines(self.lines)):
            return
        loaded, began = system(), time.perf_counter()
        inputs = loaded.plan.graph.inputs
        samples = [{field: row[field] for field in inputs} for row in self.heldout]
        record = ("states",) if loaded.plan.links else ()
        result = loaded.run(samples, rounds=rounds, edit_message=edit, record=record)
        hits = [correct(text, row) for text, row in zip(result.texts, self.heldout, strict=True)]
        share = sum(hits) / len(hits)
        self._write(
            key
            | {
                "accuracy": round(share, 4),
                "interval": [round(end, 4) for end in wilson(share, len(hits))],
                "restated": round(self._restated(result.texts), 4),
                "said": self._said(loaded, result.states.get(f"round{rounds}.reader")),
                "seconds": round(time.perf_counter() - began, 1),
                "hits": "".join(str(int(hit)) for hit in hits),
                "texts": result.texts[:6],
            }
        )

    def _restated(self, texts: list[str]) -> float:
        """Share of answers that begin with the question."""
        pairs = zip(texts, self.heldout, strict=True)
        return sum(t.strip().startswith(row["question"]) for t, row in pairs) / len(texts)

    def _said(self, system: lm.System, states_BKD: Tensor | None) -> float | None:
        """Share of the reader's last messages whose likeliest words name the answer first."""
        if states_BKD is None:
            return None
        backbone = system.backbone_of("reader")
        with torch.no_grad():
            ids_BK = backbone.logits(states_BKD).argmax(-1)
        texts = [str(backbone.tokenizer.decode(ids)) for ids in ids_BK]
        hits = [correct(text, row) for text, row in zip(texts, self.heldout, strict=True)]
        return round(sum(hits) / len(hits), 4)

    def _write(self, line: dict[str, Any]) -> None:
        append_line(self.lines, line)
        shown = {name: value for name, value in line.items() if name not in ("hits", "texts")}
        print(json.dumps(shown), line.get("texts", [])[:3], flush=True)

    def solo(self, system: str, prompt: str) -> Callable[[], lm.System]:
        """One agent by itself; a prompt's variables are fields of the rows."""

        def load() -> lm.System:
            fields = [name for name in self.rows[0] if f"{{{{ {name} }}}}" in system + prompt]
            graph = lm.Graph("solo", inputs=fields, rounds=1)
            limit = self.sizes.max_new_tokens
            graph.add_agent(
                "one", self.backbone, system=system, prompt=prompt, max_new_tokens=limit
            )
            return graph.output("one").compile().load(reuse=self.untrained)

        return load

    def twin(self) -> lm.System:
        """The untrained team in text, with as many tokens a message as there are latents."""
        return self.untrained.text_twin(max_new_tokens=self.sizes.latent_steps)

    def trained(self, name: str) -> Callable[[], lm.System]:
        """A team of `LESSONS`, trained once."""

        def load() -> lm.System:
            if name not in self._loaded:
                folder = self.folder / name / "team"
                if not folder.exists():
                    self._train(name).save_pretrained(folder)
                kept = lm.System.from_pretrained(folder, reuse=self.untrained)
                self._loaded[name] = self._fresh(kept)
            return self._loaded[name]

        return load

    def apart(self) -> lm.System:
        """Three agents: the asker listens by the stem's link, the answerer by an untrained one."""
        system = self._graph(apart=True).compile().load(reuse=self.untrained)
        learnt = self.trained("stem")().link("outer.reader->answerer.note")
        system.link("outer.reader->asker.note").load_state_dict(learnt.state_dict())
        return system

    def _fresh(self, start: lm.System | None) -> lm.System:
        """The team of these sizes, with another's links."""
        system = self._graph().compile().load(reuse=self.untrained)
        if start is not None:
            system.load_state_dict(start.state_dict())
        return system

    def _train(self, name: str) -> lm.System:
        lesson, folder = LESSONS[name], self.folder / name / "training"
        if self.tiny:
            lesson = replace(lesson, steps=1, batch=2)
        system = self._fresh(self.trained(lesson.start)() if lesson.start else None)
        forward = ["outer.reader->answerer.note"]
        config = lm.OuterConfig(
            str(folder),
            rounds=lesson.rounds,
            max_steps=lesson.steps,
            learning_rate=lesson.rate,
            warmup_steps=lesson.steps // 8,
            per_device_train_batch_size=lesson.batch,
            train_links=forward if lesson.rounds == 1 else "outer",
            answer_field="reply",
            logging_steps=5,
            telemetry=False,
            probe_stability=False,
            use_cpu=True,
            seed=self.seed + list(LESSONS).index(name),
        )
        began, resumed = time.perf_counter(), any(folder.glob("checkpoint-*"))
        rows = self.rows[: lesson.steps * lesson.batch]
        if lesson.facts != self.sizes.facts:
            rows = list(make_rows(len(rows), random.Random(-1 - self.seed), lesson.facts))
        trainer = lm.OuterTrainer(system, config, train_dataset=rows)
        trainer.train(resume_from_checkpoint=True if resumed else None)
        log = [
            {key: round(entry[key], 3) for key in ("step", "loss", "grad_norm")}
            for entry in trainer.state.log_history
            if "grad_norm" in entry
        ]
        seconds = round(time.perf_counter() - began, 1)
        key = {"seed": self.seed, "system": name, "training": log, "resumed": resumed}
        self._write(key | {"train_rounds": lesson.rounds, "seconds": seconds})
        return system


def only(part: str, edit: Callable[[Tensor], Tensor]) -> Edit:
    """Edits the messages whose name holds `part`, and leaves the others."""
    return lambda name, message: edit(message) if part in name else message


EDITS = {
    "shuffled": lambda message: message.roll(1, 0),
    "zeroed": torch.zeros_like,
}


def solos(bench: Bench) -> None:
    """What each agent can do with words alone."""
    bench.measure("answerer alone", bench.solo("Quiz.", "Repeat: {{ question }}"))
    bench.measure("reader with question", bench.solo("{{ passage }}", "{{ question }}"))
    told = ANSWERER
    bench.measure("answerer told the fact", bench.solo("Quiz.", told))


def untrained(bench: Bench) -> None:
    """The untrained team and its text twin, by rounds."""
    for rounds in bench.depths:
        bench.measure("untrained", lambda: bench.untrained, rounds)
        bench.measure("text twin", bench.twin, rounds)


def grid(bench: Bench, name: str) -> None:
    """One trained team at several depths."""
    for rounds in bench.depths:
        bench.measure(name, bench.trained(name), rounds)


def apart(bench: Bench) -> None:
    """The team of three by rounds."""
    for rounds in bench.depths:
        bench.measure("apart", bench.apart, rounds)


def controls(bench: Bench) -> None:
    """The team of three at two rounds, with feedback of another question, or without any."""
    for control, edit in EDITS.items():
        what = f"reader gets {control}"
        bench.measure("apart", bench.apart, 2, what, only("->reader", edit))


TASKS: dict[str, Callable[[Bench], None]] = {
    "stem": lambda bench: grid(bench, "stem"),
    "solos": solos,
    "untrained": untrained,
    "read": lambda bench: grid(bench, "read"),
    "apart": apart,
    "controls": controls,
    "twice": lambda bench: grid(bench, "twice"),
    "once": lambda bench: grid(bench, "once"),
    "thrice": lambda bench: grid(bench, "thrice"),
}


def main() -> None:
    """Run what is missing, and gather."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a few steps, to see that it works")
    parser.add_argument("--json", type=Path, help="write all lines there as one JSON object")
    parser.add_argument(
        "--work", type=Path, help="lines and teams; default out/rounds, or rounds-tiny"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", default="1,2,3", help="rounds that teams are run for")
    parser.add_argument("--asks", type=int, help="latent steps of the answerer")
    parser.add_argument("--heldout", type=int, help="number of held-out questions")
    parser.add_argument(
        "--only", default=",".join(TASKS), help="some of " + ", ".join(TASKS) + ", or none"
    )
    given = parser.parse_args()
    logging.disable_progress_bar()
    sizes = TINY if given.tiny else Sizes()
    sizes = replace(sizes, heldout=given.heldout or sizes.heldout, asks=given.asks or sizes.asks)
    work = given.work or Path("out/rounds-tiny" if given.tiny else "out/rounds")
    depths = [int(number) for number in given.rounds.split(",")]
    bench = Bench(sizes, work, given.seed, depths, given.tiny)
    for name in filter(None, given.only.split(",")):
        TASKS[name](bench)
    if given.json:
        lines = [x for path in sorted(work.glob("lines-*.jsonl")) for x in read_lines(path)]
        machine = {key: hardware()[key] for key in ("processor", "cores", "threads")}
        report = {"hardware": machine, "sizes": asdict(sizes), "lines": lines}
        given.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
