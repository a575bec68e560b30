"""Plans that must not change by accident, one file for each template.

`python tests/golden/rewrite.py` writes them anew; look at the difference before keeping it.
"""

from __future__ import annotations

from pathlib import Path

import latentmas as lm

FOLDER = Path(__file__).parent / "plans"

WIDE = lm.Backbone("example/wide", dtype="bfloat16")
SLIM = lm.Backbone("example/slim", revision="v1")
FACTS = {
    "example/wide": lm.BackboneInfo(
        model_type="qwen3",
        hidden_size=2048,
        vocab_size=151936,
        num_layers=28,
        max_positions=40960,
        costs=lm.BackboneCosts(
            body_parameters=1_400_000_000,
            head_parameters=311_164_928,
            loaded_parameters=1_711_164_928,
            widest=6144,
            attention_width=57_344,
            kv_elements=57_344,
            layers={"full": 28},
            dtype="bfloat16",
        ),
    ),
    "example/slim": lm.BackboneInfo(
        model_type="llama", hidden_size=1536, vocab_size=128256, num_layers=16
    ),
}
"""Facts by source, so that nothing is read from a disk or a network."""


def plans() -> dict[str, lm.Plan]:
    """Every template with the paper's links, on two backbones."""
    teams = lm.templates
    links = {"link": "recursive", "inner": "recursive"}
    experts = {"math": SLIM, "code": WIDE, "science": SLIM}
    graphs = {
        "sequential": teams.sequential(planner=WIDE, critic=SLIM, solver=WIDE, **links),
        "mixture": teams.mixture(experts=experts, summarizer=WIDE, **links),
        "distillation": teams.distillation(expert=WIDE, learner=SLIM, **links),
        "deliberation": teams.deliberation(reflector=WIDE, tool_caller=WIDE, **links),
    }
    return {name: graph.compile(facts=FACTS) for name, graph in graphs.items()}


if __name__ == "__main__":
    for name, plan in plans().items():
        print(plan.save(FOLDER / f"{name}.json"))
