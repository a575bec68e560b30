"""What to write instead of attributes that a plan does not have."""

from __future__ import annotations

__all__ = ["ELSEWHERE"]

ELSEWHERE = {
    "run": "a plan has no weights; call plan.load().run(samples)",
    "stream": "a plan has no weights; call plan.load().stream(sample)",
    "train": "load the team first: system = plan.load(); then use a trainer, such as "
    "lm.OuterTrainer(system, config, train_dataset=rows).train()",
    "parameters": "a plan has no weights; call plan.load().parameters()",
    "to": "a plan has no weights; call plan.load(device=…)",
    "save_pretrained": "a plan has no weights; call plan.load().save_pretrained(folder), or "
    "plan.save(path) for the plan itself",
    "compile": "a plan is already compiled; call plan.load() for the weights",
    "rounds": "read plan.graph.rounds; change it with plan.replace(rounds=…)",
    "latent_steps": "read plan.graph.latent_steps; change it with plan.replace(latent_steps=…)",
    "agents": "read plan.graph.agents",
    "edges": "read plan.graph.edges",
}
"""Attribute that a plan does not have → what to write instead."""
