"""The differences of two plans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from latentmas.plan.plan import Plan

__all__ = ["diff_plans"]

_COUNTS: Any = {"info": {"costs": True, "adapter": {"n_parameters"}}}


def diff_plans(a: Plan, b: Plan) -> list[str]:
    """Changes from `a` to `b`, one line per difference; empty if and only if they are equal.

    Plans are equal when their digests are. Lines read `agent planner: latent_steps 16 -> 8`,
    `link outer.x->y.z: in_dim 64 -> 96`, `agent critic: added`.
    """
    lines = [
        *_fields("", _general(a), _general(b), mark=": "),
        *_named("backbone", _backbones(a), _backbones(b)),
        *_listed("agent", a.graph.agents, b.graph.agents, "name"),
        *_listed("text source", a.graph.text_sources, b.graph.text_sources, "name"),
        *_listed("edge", a.graph.edges, b.graph.edges, "id"),
        *_listed("link", a.links, b.links, "id"),
        *_steps(a, b),
    ]
    if not lines and a.digest != b.digest:
        lines.append("declared backbones: differ in parts that no agent uses")
    return lines


def _general(plan: Plan) -> dict[str, Any]:
    graph = plan.graph.model_dump(mode="json")
    return {key: graph[key] for key in ("name", "inputs", "rounds", "latent_steps", "output")}


def _backbones(plan: Plan) -> dict[str, dict[str, Any]]:
    """Drop the counts for the cost model, which are not part of a plan's digest."""
    return {
        key: backbone.model_dump(mode="json", exclude=_COUNTS)
        for key, backbone in plan.backbones.items()
    }


def _data(models: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {key: model.model_dump(mode="json") for key, model in models.items()}


def _listed(noun: str, a: Sequence[Any], b: Sequence[Any], key: str) -> Iterator[str]:
    old = {getattr(item, key): item for item in a}
    new = {getattr(item, key): item for item in b}
    yield from _named(noun, _data(old), _data(new))
    if list(old) != list(new) and set(old) == set(new):
        yield f"{noun}s: order {', '.join(old)} -> {', '.join(new)}"


def _named(
    noun: str, old: Mapping[str, dict[str, Any]], new: Mapping[str, dict[str, Any]]
) -> Iterator[str]:
    yield from (f"{noun} {name}: removed" for name in old if name not in new)
    yield from (f"{noun} {name}: added" for name in new if name not in old)
    for name in old:
        if name in new:
            yield from (f"{noun} {name}: {line}" for line in _fields("", old[name], new[name]))


def _fields(
    path: str, old: Mapping[str, Any], new: Mapping[str, Any], mark: str = " "
) -> Iterator[str]:
    """Changed fields, nested ones by dotted path."""
    for key in dict.fromkeys((*old, *new)):
        before, after = old.get(key), new.get(key)
        where = f"{path}{key}"
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _fields(f"{where}.", before, after, mark)
        elif _differ(before, after):
            yield f"{where}{mark}{_change(before, after)}"


def _differ(before: Any, after: Any) -> bool:
    return repr(before) != repr(after)  # distinguishes 1, 1.0 and True


def _change(before: Any, after: Any) -> str:
    texts = [value for value in (before, after) if isinstance(value, str)]
    if any("\n" in text or len(text) > 40 for text in texts):
        return "changed"
    return f"{_plain(before)} -> {_plain(after)}"


def _plain(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(str, value))}]"
    return "none" if value is None else str(value)


def _steps(a: Plan, b: Plan) -> Iterator[str]:
    if len(a.steps) != len(b.steps):
        yield f"steps: {len(a.steps)} -> {len(b.steps)}"
        return
    for index, (old, new) in enumerate(zip(a.steps, b.steps, strict=True)):
        before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
        yield from (f"step {index}: {line}" for line in _fields("", before, after))
