"""The generated model card, `README.md` of a saved team."""

from __future__ import annotations

from latentmas.plan import Plan

__all__ = ["model_card"]


def model_card(plan: Plan) -> str:
    """Base models, diagram, links and a snippet that runs; computed from the plan alone."""
    sources = list(dict.fromkeys(b.spec.source for b in plan.backbones.values()))
    hub = [source for source in sources if ":" not in source and not source.startswith(("/", "."))]
    return "\n".join(
        [
            "---",
            "library_name: latentmas",
            *(["base_model:", *(f"- {source}" for source in hub)] if hub else []),
            "tags:",
            "- latent-multi-agent",
            "---",
            f"# {plan.graph.name}",
            "",
            f"A latent multi-agent team of {len(plan.graph.agents)} agents and "
            f"{plan.graph.rounds} rounds. This folder holds its links "
            f"({plan.n_parameters:,} weights), graph and prompts; backbones are loaded from where "
            "they are declared.",
            "",
            "```mermaid",
            plan.mermaid().strip(),
            "```",
            "",
            "| backbone | type | width | agents |",
            "|---|---|---|---|",
            *(
                f"| `{b.spec.source}`{f' @ {b.spec.revision}' if b.spec.revision else ''} "
                f"| {b.info.model_type} | {b.info.hidden_size} | {', '.join(b.agents)} |"
                for b in plan.backbones.values()
            ),
            "",
            "| link | kind | widths | weights |",
            "|---|---|---|---|",
            *(
                f"| `{link.id}` | {link.kind} | {link.in_dim} → {link.out_dim} "
                f"| {link.n_parameters:,} |"
                for link in plan.links
            ),
            "",
            "```python",
            "import latentmas as lm",
            "",
            'system = lm.System.from_pretrained("path/of/this/folder")',
            f"print(system({_sample(plan)}).text)",
            "```",
            "",
        ]
    )


def _sample(plan: Plan) -> str:
    inputs = plan.graph.inputs
    if len(inputs) == 1:
        return '"…"'
    return "{" + ", ".join(f'"{name}": "…"' for name in inputs) + "}"
