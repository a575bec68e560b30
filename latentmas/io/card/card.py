"""Generate the model card of a saved team, its `README.md`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from latentmas import __version__
from latentmas.evaluation import wilson
from latentmas.io.card.merge import BEGIN, END, merge_person
from latentmas.plan import Plan
from latentmas.redact import redact
from latentmas.runtime import Score, TrainingRecord
from latentmas.tools import tools

__all__ = ["merge_person", "model_card"]

TIMINGS = ("runtime", "samples_per_second", "steps_per_second", "model_preparation_time")


def model_card(
    plan: Plan,
    *,
    history: Sequence[TrainingRecord] = (),
    scores: Sequence[Score] = (),
    commits: Mapping[str, str] | None = None,
    name: str | None = None,
) -> str:
    """Generate Hub metadata and the model card, between two marks that delimit the generated part.

    The card has a diagram, base models, links, a runnable example, training recipe, results, and
    the versions and hardware of each training.

    Args:
        plan: the team's plan.
        history: the team's trainings.
        scores: measured results.
        commits: Hub commit of each backbone, by key.
        name: name of the team in the example; None refers to the folder itself.
    """
    title = " ".join(plan.graph.name.split()) or "team"
    lines = [
        f"# {title}",
        "",
        f"A latent multi-agent team of {len(plan.graph.agents)} agents and {plan.graph.rounds} "
        f"rounds, for `latentmas`. This folder holds its links "
        f"({plan.n_parameters:,} weights), graph and prompts; backbones are loaded from their "
        "declared sources.",
        "",
        *("```mermaid", plan.mermaid().strip(), "```", ""),
        *_backbones(plan, commits or {}),
        *_links(plan),
        *_example(plan, name),
        *_recipe(history),
        *_results(history, scores),
        *_made_with(plan, history),
    ]
    body = redact("\n".join(lines).rstrip()).replace("<!--", "&lt;!--")
    return f"{_metadata(plan)}\n{BEGIN}\n{body}\n{END}\n"


def _metadata(plan: Plan) -> str:
    sources = dict.fromkeys(b.spec.source for b in plan.backbones.values())
    hub = [source for source in sources if ":" not in source and not source.startswith(("/", "."))]
    models = ["base_model:", *(f"- {source}" for source in hub)] if hub else []
    relation = ["base_model_relation: adapter"] if hub else []
    kinds = dict.fromkeys(f"latentmas-{link.kind}" for link in plan.links)
    tags = ["tags:", "- latent-multi-agent", *(f"- {kind}" for kind in kinds)]
    return "\n".join(["---", "library_name: latentmas", *models, *relation, *tags, "---"])


def _backbones(plan: Plan, commits: Mapping[str, str]) -> Iterator[str]:
    yield from _table(
        ("backbone", "revision", "type", "width", "agents"),
        (
            (
                f"`{b.spec.source}`"
                + (f" with adapter `{b.spec.adapter}`" if b.spec.adapter else ""),
                f"`{commits.get(key) or b.spec.revision or '–'}`",
                b.info.model_type,
                b.info.hidden_size,
                ", ".join(b.agents),
            )
            for key, b in plan.backbones.items()
        ),
    )


def _links(plan: Plan) -> Iterator[str]:
    if plan.links:
        yield from _table(
            ("link", "kind", "widths", "weights"),
            (
                (f"`{x.id}`", x.kind, f"{x.in_dim} → {x.out_dim}", f"{x.n_parameters:,}")
                for x in plan.links
            ),
        )


def _example(plan: Plan, name: str | None) -> Iterator[str]:
    asked = [s.name for s in plan.graph.text_sources if s.text is None]
    own = sorted({tool for a in plan.graph.agents for tool in a.tools if tool not in tools})
    arguments = [f'"{name}"' if name else '"."']
    if asked:
        texts = ", ".join(f'"{source}": lambda sample: "…"' for source in asked)
        arguments.append(f"text_functions={{{texts}}}")
    if own:
        arguments.append("tools={" + ", ".join(f'"{tool}": {tool}' for tool in own) + "}")
    given = [b.spec.given for b in plan.backbones.values() if b.spec.given]
    if given:
        arguments.append(
            "models={" + ", ".join(f'"{one}": (model, tokenizer)' for one in given) + "}"
        )
    yield from ("```python", "import latentmas as lm", "")
    for tool in own:
        yield from ("", f"def {tool}(text: str) -> str:", '    """Your own tool."""')
        yield from ('    return "…"', "", "")
    where = "" if name else "  # this folder"
    yield f"system = lm.System.from_pretrained({', '.join(arguments)}){where}"
    yield from (f"print(system({_sample(plan)}).text)", "```", "")


def _sample(plan: Plan) -> str:
    inputs = plan.graph.inputs
    if len(inputs) == 1:
        return '"…"'
    return "{" + ", ".join(f'"{name}": "…"' for name in inputs) + "}"


def _recipe(history: Sequence[TrainingRecord]) -> Iterator[str]:
    if not history:
        return
    yield from ("## Recipe", "")
    yield from _table(
        ("loop", "links", "steps", "rows", "batch", "rate", "rounds", "seed", "last loss"),
        (_training(record) for record in history),
    )
    yield from ("The arguments and the log of each training are in `training/`.", "")


def _training(record: TrainingRecord) -> Iterator[Any]:
    told, given = record.manifest, record.arguments
    losses = [entry["loss"] for entry in record.log if "loss" in entry]
    yield record.loop
    yield len(told.get("links") or ())
    yield told.get("steps")
    yield _data(told).get("rows")
    yield given.get("per_device_train_batch_size")
    yield given.get("learning_rate")
    yield given.get("rounds")
    yield told.get("seed")
    yield _number(losses[-1]) if losses else None


def _results(history: Sequence[TrainingRecord], scores: Sequence[Score]) -> Iterator[str]:
    rows = [_score(score) for score in (*_evaluated(history), *scores)]
    if not rows:
        return
    yield from ("## Results", "")
    yield from _table(("metric", "value", "95 % interval", "samples", "data", "settings"), rows)


def _score(score: Score) -> tuple[Any, ...]:
    low, high = score.low, score.high
    if low is None and high is None and score.n and 0 <= score.value <= 1:
        low, high = wilson(score.value, score.n)
    between = f"{_number(low)} to {_number(high)}" if low is not None and high is not None else None
    settings = ", ".join(f"{key} {value}" for key, value in score.settings.items())
    return score.metric, _number(score.value), between, score.n, score.data, settings


def _evaluated(history: Sequence[TrainingRecord]) -> Iterator[Score]:
    """The final evaluation of each training."""
    for record in history:
        entries = [e for e in record.log if any(str(key).startswith("eval_") for key in e)]
        if not entries:
            continue
        held_out = record.manifest.get("eval_data")
        rows = held_out.get("rows") if isinstance(held_out, Mapping) else None
        for key, value in entries[-1].items():
            metric = str(key).removeprefix("eval_")
            if metric == key or metric in TIMINGS or not isinstance(value, int | float):
                continue
            # Give an interval only for exact_match, which is a proportion of the held-out rows.
            counted = rows if metric == "exact_match" and isinstance(rows, int) else None
            yield Score(metric, value, n=counted, data=f"held-out rows of the {record.loop} loop")


def _made_with(plan: Plan, history: Sequence[TrainingRecord]) -> Iterator[str]:
    yield from (
        "## Made with",
        "",
        f"Plan `{plan.digest}`, written by latentmas {__version__}.",
        "",
    )
    if not history:
        return
    rows = []
    for record in history:
        told = record.manifest
        versions, machine = _mapping(told, "versions"), _mapping(told, "hardware")
        shown = ("latentmas", "torch", "transformers")
        devices = [d for d in machine.get("devices") or () if d != "cpu"]
        rows.append(
            (
                record.loop,
                ", ".join(f"{name} {versions.get(name)}" for name in shown),
                ", ".join(map(str, devices)) or machine.get("processor"),
                f"`{str(_data(told).get('digest'))[:12]}`",
                f"`{str(told.get('links_before'))[:12]}` → `{str(told.get('links_after'))[:12]}`",
            )
        )
    yield from _table(("loop", "versions", "hardware", "data", "links before → after"), rows)


def _data(told: Mapping[str, Any]) -> Mapping[str, Any]:
    return _mapping(told, "data")


def _mapping(told: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = told.get(key)
    return found if isinstance(found, Mapping) else {}


def _number(value: object) -> str | None:
    return f"{value:.4g}" if isinstance(value, int | float) else None


def _table(head: Sequence[str], rows: Any) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield f"| {' | '.join(map(_cell, row))} |"
    yield ""


def _cell(value: object) -> str:
    text = "–" if value is None or value == "" else str(value)
    return " ".join(text.split()).replace("|", "\\|")
