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
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.utils import logging

import latentmas as lm
from latentmas.demo.real import SMOLLM2
from latentmas.demo.relay import KINDS, PEOPLE
from latentmas.environment import hardware
from latentmas.evaluation.intervals import wilson
from latentmas.testing import tiny_backbone

Row = dict[str, Any]
Edit = Callable[[str, Tensor], Tensor]


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FACTS = {
    "city": KINDS["city"],
    "pet": KINDS["pet"],
    "color": (
        "{name}'s favorite color is {value}.",
        "What is {name}'s favorite color?",
        _words("red blue green yellow white black pink brown grey"),
    ),
    "month": (
        "{name} was born in {value}.",
        "When was {name} born?",
        _words("January March April May June July August October December"),
    ),
    "subject": (
        "{name} studies {value}.",
        "What does {name} study?",
        _words("physics history biology law medicine art music chemistry geography"),
    ),
    "age": (
        "{name} is {value} years old.",
        "How old is {name}?",
        _words("23 27 31 34 38 42 46 53 61"),
    ),
}
"""Kind of a fact → its sentence, the question about it, and its nine values. SmolLM2 finds these
six kinds in a passage in most cases; jobs, foods, drinks, sports and instruments less often."""
_VALUES = re.compile(
    rf"\b({'|'.join(value for _, _, values in FACTS.values() for value in values)})\b",
    re.IGNORECASE,
)
READER = "{% if feedback %}{{ feedback }}{% else %}Repeat the facts.{% endif %}"
ANSWERER = "{{ note }}\nRepeat: {{ question }}"
TEAMS = {"once": 1, "twice": 2, "thrice": 3}
"""Trained team → rounds that it is trained through, from one stem that was trained through one."""


@dataclass(frozen=True)
class Sizes:
    """Of the experiment."""

    facts: int = 6
    latent_steps: int = 8
    train_rows: int = 640
    stem_steps: int = 60
    stem_rate: float = 1e-3
    stem_batch: int = 16
    steps: int = 30
    rate: float = 5e-4
    batch: int = 8
    heldout: int = 128
    max_new_tokens: int = 16


TINY = Sizes(train_rows=8, stem_steps=1, stem_batch=2, steps=1, batch=2, heldout=4)


def make_rows(count: int, draw: random.Random, facts: int) -> Iterator[Row]:
    """Rows with a passage, a question, the answer, and the reply that training asks for."""
    for _ in range(count):
        name, kinds = draw.choice(PEOPLE), draw.sample(list(FACTS), facts)
        values = [draw.choice(FACTS[kind][2]) for kind in kinds]
        told = [
            FACTS[kind][0].format(name=name, value=value)
            for kind, value in zip(kinds, values, strict=True)
        ]
        asked = draw.randrange(facts)
        question = FACTS[kinds[asked]][1].format(name=name)
        yield {
            "passage": " ".join(told),
            "question": question,
            "answer": values[asked],
            "reply": f"{question} {values[asked]}",
            "note": told[asked],
        }


def correct(text: str, row: Row) -> bool:
    """Whether the first value that a text names is the answer."""
    found = _VALUES.search(text)
    return found is not None and found.group().lower() == row["answer"].lower()


def team(backbone: lm.Backbone, sizes: Sizes) -> lm.Graph:
    """Reader and answerer, a message forward and a feedback edge, both through the vocabulary."""
    graph = lm.Graph(
        "asking", inputs=["passage", "question"], rounds=3, latent_steps=sizes.latent_steps
    )
    graph.add_agent("reader", backbone, system="{{ passage }}", prompt=READER, inner="soft_token")
    graph.add_agent(
        "answerer",
        backbone,
        system="Quiz.",
        prompt=ANSWERER,
        inner="soft_token",
        max_new_tokens=sizes.max_new_tokens,
    )
    graph.connect("reader", "answerer.note", link="soft_token", residual=True)
    graph.feedback("answerer", "reader.feedback", link="soft_token", residual=True)
    return graph.output("answerer")


class Bench:
    """One seed: what is measured, with everything that was found kept on disk."""

    def __init__(
        self, sizes: Sizes, folder: Path, seed: int, depths: list[int], tiny: bool
    ) -> None:
        self.sizes, self.seed, self.depths = sizes, seed, depths
        self.folder = folder / f"seed-{seed}"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.lines = folder / f"lines-{seed}.jsonl"
        self.backbone = (
            tiny_backbone("llama", 32) if tiny else lm.Backbone(SMOLLM2, dtype="float32")
        )
        self.untrained = team(self.backbone, sizes).compile().load(seed=seed)
        draw = random.Random(seed)
        self.rows = list(make_rows(sizes.train_rows, draw, sizes.facts))
        seen = {row["passage"] for row in self.rows}
        more = make_rows(2 * sizes.heldout, draw, sizes.facts)
        self.heldout = [row for row in more if row["passage"] not in seen][: sizes.heldout]
        self._loaded: dict[str, lm.System] = {}

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
        key["n"] = len(self.heldout)
        if any(key.items() <= line.items() for line in read_lines(self.lines)):
            return
        loaded, began = system(), time.perf_counter()
        inputs = loaded.plan.graph.inputs
        samples = [{field: row[field] for field in inputs} for row in self.heldout]
        result = loaded.run(samples, rounds=rounds, edit_message=edit)
        hits = [correct(text, row) for text, row in zip(result.texts, self.heldout, strict=True)]
        share = sum(hits) / len(hits)
        self._write(
            key
            | {
                "accuracy": round(share, 4),
                "interval": [round(end, 4) for end in wilson(share, len(hits))],
                "restated": round(self._restated(result.texts), 4),
                "seconds": round(time.perf_counter() - began, 1),
                "hits": "".join(str(int(hit)) for hit in hits),
                "texts": result.texts[:6],
            }
        )

    def _restated(self, texts: list[str]) -> float:
        """Share of answers that begin with the question."""
        pairs = zip(texts, self.heldout, strict=True)
        return sum(t.strip().startswith(row["question"]) for t, row in pairs) / len(texts)

    def _write(self, line: dict[str, Any]) -> None:
        with self.lines.open("a") as file:
            file.write(json.dumps(line) + "\n")
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
        """A team of `TEAMS`, or the stem that they start from; trained once."""

        def load() -> lm.System:
            if name not in self._loaded:
                folder = self.folder / name / "team"
                if not folder.exists():
                    self._train(name).save_pretrained(folder)
                self._loaded[name] = lm.System.from_pretrained(folder, reuse=self.untrained)
            return self._loaded[name]

        return load

    def _train(self, name: str) -> lm.System:
        sizes, stem = self.sizes, name == "stem"
        system = team(self.backbone, sizes).compile().load(seed=self.seed, reuse=self.untrained)
        if not stem:
            weights = self.trained("stem")().state_dict()
            system.load_state_dict(weights)
        rounds = 1 if stem else TEAMS[name]
        forward = ["outer.reader->answerer.note"]
        config = lm.OuterConfig(
            str(self.folder / name / "training"),
            rounds=rounds,
            max_steps=sizes.stem_steps if stem else sizes.steps,
            learning_rate=sizes.stem_rate if stem else sizes.rate,
            warmup_steps=8 if stem else 4,
            per_device_train_batch_size=sizes.stem_batch if stem else sizes.batch,
            train_links=forward if rounds == 1 else "outer",
            answer_field="reply",
            logging_steps=5,
            telemetry=False,
            probe_stability=False,
            use_cpu=True,
            seed=self.seed + (0 if stem else 100),
        )
        began = time.perf_counter()
        rows = self.rows if stem else self.rows[: sizes.steps * sizes.batch]
        trainer = lm.OuterTrainer(system, config, train_dataset=rows)
        started = any(Path(config.output_dir).glob("checkpoint-*"))
        trainer.train(resume_from_checkpoint=True if started else None)
        log = [
            {key: entry[key] for key in ("step", "loss", "grad_norm")}
            for entry in trainer.state.log_history
            if "grad_norm" in entry
        ]
        seconds = round(time.perf_counter() - began, 1)
        key = {"seed": self.seed, "system": name, "training": log, "resumed": started}
        self._write(key | {"train_rounds": rounds, "seconds": seconds})
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


def controls(bench: Bench, name: str) -> None:
    """Two rounds with the feedback, or the last message, of another question or without any."""
    for part in ("->reader", "->answerer"):
        for control, edit in EDITS.items():
            what = f"{part.removeprefix('->')} gets {control}"
            bench.measure(name, bench.trained(name), 2, what, only(part, edit))


TASKS: dict[str, Callable[[Bench], None]] = {
    "stem": lambda bench: grid(bench, "stem"),
    "solos": solos,
    "untrained": untrained,
    "twice": lambda bench: grid(bench, "twice"),
    "controls": lambda bench: controls(bench, "twice"),
    "once": lambda bench: grid(bench, "once"),
    "thrice": lambda bench: grid(bench, "thrice"),
}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Lines that are there; one cut off by a crash is left out."""
    found = list[dict[str, Any]]()
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


def main() -> None:
    """Run what is missing, and gather."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--tiny", action="store_true", help="a few steps, to see that it works")
    parser.add_argument("--json", type=Path, help="write all lines there as one JSON object")
    parser.add_argument("--work", type=Path, default=Path("out/rounds"), help="lines and teams")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rounds", default="1,2,3", help="rounds that teams are run for")
    parser.add_argument("--heldout", type=int, help="number of held-out questions")
    parser.add_argument("--only", default=",".join(TASKS), help="some of " + ", ".join(TASKS))
    given = parser.parse_args()
    logging.disable_progress_bar()
    sizes = TINY if given.tiny else Sizes()
    sizes = replace(sizes, heldout=given.heldout or sizes.heldout)
    depths = [int(number) for number in given.rounds.split(",")]
    bench = Bench(sizes, given.work, given.seed, depths, given.tiny)
    for name in given.only.split(","):
        TASKS[name](bench)
    if given.json:
        lines = [x for path in sorted(given.work.glob("lines-*.jsonl")) for x in read_lines(path)]
        report = {"hardware": hardware(), "sizes": asdict(sizes), "lines": lines}
        given.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
