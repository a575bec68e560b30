"""Graphs to draw: the templates, four more topologies, and random teams of any size."""

from __future__ import annotations

import random
import runpy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import latentmas as lm

GOLDEN: dict[str, Any] = runpy.run_path(str(Path(__file__).parent / "golden" / "rewrite.py"))
WIDE, SLIM, FACTS = GOLDEN["WIDE"], GOLDEN["SLIM"], GOLDEN["FACTS"]
PLANS: dict[str, lm.Plan] = GOLDEN["plans"]()


def team(name: str, agents: dict[str, Sequence[str]], back: Sequence[tuple[str, str]]) -> lm.Plan:
    """Agents with the names whose messages they read, and feedback edges."""
    graph = lm.Graph(name, inputs=["question"], rounds=2, latent_steps=4)
    for number, (agent, reads) in enumerate(agents.items()):
        slots = "".join(f"{{{{ {source} }}}} " for source in reads)
        guarded = "".join(
            f"{{% if b_{source} %}}{{{{ b_{source} }}}}{{% endif %}}"
            for source, target in back
            if target == agent
        )
        graph.add_agent(agent, (WIDE, SLIM)[number % 2], prompt=slots + guarded + "{{ question }}")
    for agent, reads in agents.items():
        for source in reads:
            graph.connect(source, agent)
    for source, target in back:
        graph.feedback(source, f"{target}.b_{source}")
    return graph.output(list(agents)[-1]).compile(facts=FACTS)


def tree() -> lm.Plan:
    """Four experts, two editors, a judge."""
    leaves = [f"expert_{n}" for n in range(4)]
    agents: dict[str, Sequence[str]] = dict.fromkeys(leaves, ())
    agents |= {"left": leaves[:2], "right": leaves[2:], "root": ("left", "right")}
    return team("tree of experts", agents, [("root", leaf) for leaf in leaves])


def debate() -> lm.Plan:
    """Two who answer each other, and a judge."""
    agents = {"pro": (), "contra": ("pro",), "judge": ("pro", "contra")}
    return team("debate with judge", agents, [("contra", "pro"), ("judge", "judge")])


def ring(count: int = 5) -> lm.Plan:
    """Each reads the one before it; the last feeds back to the first."""
    agents = {f"r{n}": [f"r{n - 1}"] if n else [] for n in range(count)}
    return team("ring", agents, [(f"r{count - 1}", "r0")])


def star(count: int = 6) -> lm.Plan:
    """Experts around a hub that feeds back to all."""
    experts = [f"expert_{n}" for n in range(count)]
    agents: dict[str, Sequence[str]] = dict.fromkeys(experts, ())
    return team("star", agents | {"hub": experts}, [("hub", expert) for expert in experts])


def random_plan(count: int, seed: int) -> lm.Plan:
    """A connected team of `count` agents with text, feedback and an outside source."""
    dice = random.Random(seed)
    pairs = {(i, j) for j in range(count) for i in range(j) if dice.random() < 1.8 / count}
    pairs |= {
        (i, min(count - 1, i + dice.randint(1, 4)))
        for i in range(count - 1)
        if not any(source == i for source, _ in pairs)
    }
    drawn = [sorted(dice.choices(range(count), k=2)) for _ in range(1 + count // 4)]
    back = {(late, early) for early, late in drawn if early < count - 1 or late == early}
    graph = lm.Graph(f"random {count}", inputs=["question"], rounds=2, latent_steps=4)
    for j in range(count):
        slots = "".join(f"{{{{ f{s} }}}} " for s, t in sorted(pairs) if t == j)
        slots += "".join(
            f"{{% if b{s} %}}{{{{ b{s} }}}}{{% endif %}} " for s, t in sorted(back) if t == j
        )
        prompt = slots + "{{ notes }} {{ question }}"
        graph.add_agent(f"a{j}", dice.choice([WIDE, SLIM]), prompt=prompt)
    graph.add_text_source("notes", "be brief")
    for j in range(count):
        graph.connect("notes", f"a{j}", link="text")
    for s, t in sorted(pairs):
        graph.connect(f"a{s}", f"a{t}.f{s}", link=dice.choice(["recursive", "text"]))
    for s, t in sorted(back):
        graph.feedback(f"a{s}", f"a{t}.b{s}", link=dice.choice(["recursive", "text"]))
    return graph.output(f"a{count - 1}").compile(facts=FACTS)


GALLERY: dict[str, lm.Plan] = PLANS | {
    "tree": tree(),
    "debate": debate(),
    "ring": ring(),
    "star": star(),
}
