"""Explanations that must not change by accident: plans, options, and the figures that come out.

The file was written by the cost model that walked over the steps by itself (97e24e9), so it is an
independent count. It is not made again: that would compare the present walk with itself.
"""

from __future__ import annotations

import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import latentmas as lm
from latentmas.cli.support.team import open_plan
from tests import teams

FILE = Path(__file__).parent / "explanations.json"
ROOT = Path(__file__).parent.parent.parent
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "large": {"batch": 32, "input_tokens": 136, "max_new_tokens": 2000},
    "cpu": {"hardware": "cpu", "batch": 3, "dtype": "float32", "max_new_tokens": 7},
    "static": {"hardware": "a100", "batch": 5, "executor": "static", "max_new_tokens": 300},
    "graphs": {"hardware": "h100", "batch": 48, "executor": "cuda_graph"},
    "offload": {"hardware": "l4", "batch": 2, "executor": "offload", "characters_per_token": 3.3},
}
DEPTHS: dict[str, dict[str, int]] = {"own": {}, "deep": {"rounds": 5, "latent_steps": 9}}
COLUMNS = (
    *("index", "round", "rows", "positions", "reused", "reread", "latent_steps", "new_tokens"),
    *("flops", "weight_bytes", "state_bytes", "memory", "prompt_seconds", "call_seconds"),
    *("seconds", "reference_flops", "reference_seconds"),
)
TOTALS = ("weights", "links", "seconds", "latent_seconds", "flops", "bytes", "peak_memory")
LINES = ("basis", "unknown", "obstacles", "notes")


def plans() -> Iterator[tuple[str, lm.Plan]]:
    """Golden plans, presets, text twins, examples, and teams on tiny backbones."""
    yield from runpy.run_path(str(Path(__file__).parent / "rewrite.py"))["plans"]().items()
    for name in ("sequential_light", "sequential_scaled", "mixture", "distillation"):
        graph = getattr(lm.templates, name)()
        yield f"{name} of the paper", graph.compile()
        yield f"{name} in text", graph.as_text().compile()
    yield "deliberation of the paper", lm.templates.deliberation().compile()
    for file in ("team", "debate"):
        yield f"{file}.yaml", with_paper_links(ROOT / "examples" / f"{file}.yaml")
    for name in ("sequential", "mixture", "distillation", "deliberation"):
        yield f"tiny {name}", teams.of_template(name, "llama").compile()
    yield "hybrid", teams.of_template("mixture", "qwen3_5_text").compile()
    yield "sliding", teams.of_template("sequential", "gemma3_text").compile()
    yield "tables", tables().compile()
    yield "vocabulary", vocabulary().compile()


def with_paper_links(path: Path) -> lm.Plan:
    """The plan of a graph file with `recursive` links, which were the default of the figures."""
    data = open_plan(path).graph.model_dump()
    for part in (*(a["inner"] for a in data["agents"]), *(e["link"] for e in data["edges"])):
        if part["kind"] == "soft_token":
            part |= {"kind": "recursive", "options": {}}
    return lm.Graph.from_spec(lm.GraphSpec.model_validate(data)).compile()


def tables() -> lm.Graph:
    """Fields that are more than text, a text source, text edges, prompts that begin alike."""
    one, other = teams.tiny("llama", 16), teams.tiny("qwen3", 32)
    graph = lm.Graph("tables", inputs=["table", "question"], rounds=3, latent_steps=4)
    graph.add_text_source("notes", "Written by hand. " * 20)
    graph.add_agent(
        "reader",
        one,
        prompt="{{ notes }}{% for row in table %}{{ row.name }}: {{ row }}\n{% endfor %}"
        "{% if back %}Again, look at {{ back }} and say{% else %}Again, say{% endif %} it.",
        system="You read tables with care.",
        latent_steps=6,
        inner="recursive",
    )
    graph.add_agent(
        "speaker", other, prompt="{{ question }} {{ reader }}", max_new_tokens=11, inner="recursive"
    )
    graph.add_agent("writer", one, prompt="{{ question }}{{ said }}{{ reader }}", max_new_tokens=9)
    graph.connect("notes", "reader")
    graph.connect("reader", "speaker", link="recursive")
    graph.connect("reader", "writer", link="recursive")
    graph.connect("speaker", "writer.said", link="text")
    graph.feedback("speaker", "reader.back", link="recursive")
    return graph.output("writer")


def vocabulary() -> lm.Graph:
    """Links through the vocabulary, to another width and back."""
    one, other = teams.tiny("llama", 16), teams.tiny("qwen3", 32)
    graph = lm.Graph("vocabulary", inputs=["question"], rounds=2, latent_steps=5)
    for name, model, slot in (("a", one, "{% if b %}{{ b }}{% endif %}"), ("b", other, "{{ a }}")):
        text = "Read the question with care. {{ question }} Then go on: " + slot
        graph.add_agent(name, model, prompt=text, inner="soft_token", max_new_tokens=6)
    graph.connect("a", "b", link="soft_token", residual=False)
    graph.feedback("b", "a", link="soft_token", residual=True)
    return graph.output("b")


def figures(explanation: lm.Explanation) -> dict[str, Any]:
    """What is kept of an explanation; numbers to seven digits."""
    data = explanation.to_dict()
    return {
        **{name: data[name] for name in LINES},
        **{name: _rounded(data[name]) for name in TOTALS},
        "rows": [
            [row["op"], " ".join(row["agents"]), *(_rounded(row[name]) for name in COLUMNS)]
            for row in data["rows"]
        ],
    }


def _rounded(number: float | None) -> float | None:
    return float(f"{number:.7g}") if isinstance(number, float) else number


def explained() -> Iterator[tuple[str, lm.Explanation]]:
    """Each plan with some of the options in turn; tiny teams with their tokenizers too."""
    names = list(OPTIONS)
    for number, (name, plan) in enumerate(plans()):
        for depth, own in (("own", (0, number, number + 3)), ("deep", (number,))):
            deep = plan.replace(**DEPTHS[depth]) if DEPTHS[depth] else plan
            for options in dict.fromkeys(names[i % len(names)] for i in own):
                yield f"{name}, {depth}, {options}", deep.explain(**OPTIONS[options])
        if all(b.spec.source.startswith("/") for b in plan.backbones.values()):
            yield from counted(name, plan)


def counted(name: str, plan: lm.Plan) -> Iterator[tuple[str, lm.Explanation]]:
    """With three samples of unequal length."""
    system = plan.load()
    rows = [
        {field: [{"name": text}] if field == "table" else text for field in plan.graph.inputs}
        for text in teams.QUESTIONS
    ]
    for executor in ("cached", "static", "offload"):
        found = system.explain(rows, "cpu", executor=executor, rounds=3, max_new_tokens=20)
        yield f"{name}, counted, {executor}", found
