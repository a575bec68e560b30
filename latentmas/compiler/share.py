"""Share: which agents run on the same backbone, and the facts of each backbone."""

from __future__ import annotations

from collections.abc import Mapping

from latentmas.backbones import (
    AdapterError,
    RefusedBackboneError,
    UnsuitableBackboneError,
    read_info,
    with_adapter_facts,
)
from latentmas.errors import Problem, WeightsError, closest
from latentmas.plan import BackboneInfo, PlanBackbone
from latentmas.spec import GIVEN, Backbone, GraphSpec

__all__ = ["share"]


def share(
    graph: GraphSpec,
    facts: Mapping[str, BackboneInfo],
    models: Mapping[str, object] | None = None,
) -> tuple[GraphSpec, dict[str, PlanBackbone], list[Problem]]:
    """Give agents with equal backbones the same key, and read each backbone's facts once.

    Requires: nothing. Ensures: every agent whose backbone is known refers to a key of the result.

    Args:
        graph: The declaration.
        facts: Known facts, by key or source.
        models: Models that are handed over, by name; their facts go before known ones.

    Returns:
        The graph with merged keys, the backbones by key, and LM101 and LM201 to LM208 problems.
    """
    merged = _merged_keys(graph)
    users: dict[str, list[str]] = {}
    problems = _stray_facts(graph, facts)
    problems += _stray_models(graph, models or {})
    facts = {name: info for name, info in facts.items() if isinstance(info, BackboneInfo)}
    for agent in graph.agents:
        if agent.backbone in merged:
            users.setdefault(merged[agent.backbone], []).append(agent.name)
        else:
            problems.append(_unknown(agent.name, agent.backbone, list(graph.backbones)))
    if all(agent.backbone in merged for agent in graph.agents):
        problems += _unused(graph, merged, users)
    backbones = {}
    for key, names in users.items():
        spec = graph.backbones[key]
        try:
            info = _info(key, spec, facts, models or {})
        except AdapterError as error:
            problems.append(Problem("LM208", f"backbone {key}", error.message, error.hint))
            continue
        except UnsuitableBackboneError as error:
            hint = "choose a decoder-only language model"
            problems.append(Problem("LM202", f"backbone {key}", str(error), hint))
            continue
        except RefusedBackboneError as error:
            where, hint = f"backbone {key}", error.hint
            problems.append(Problem(error.code, where, error.message, hint, error.file_hint))
            continue
        except WeightsError as error:
            hint = "check the source, download it, or pass its facts to compile(facts=…)"
            in_file = (
                "check `source`; only a folder that starts with ./ is relative to the graph file"
            )
            problems.append(Problem("LM201", f"backbone {key}", str(error), hint, in_file))
            continue
        backbones[key] = PlanBackbone(spec=spec, info=info, agents=tuple(dict.fromkeys(names)))
    agents = [
        agent.model_copy(update={"backbone": merged.get(agent.backbone, agent.backbone)})
        for agent in graph.agents
    ]
    kept = {key: spec for key, spec in graph.backbones.items() if key in users}
    return (
        graph.model_copy(update={"agents": tuple(agents), "backbones": kept}),
        backbones,
        problems,
    )


def _info(
    key: str, spec: Backbone, facts: Mapping[str, BackboneInfo], models: Mapping[str, object]
) -> BackboneInfo:
    if spec.given is not None and spec.given in models:
        from latentmas.backbones import given_info  # imported late: it imports transformers

        return with_adapter_facts(spec, given_info(spec, models[spec.given]))
    known = facts.get(key) or facts.get(spec.source)
    return with_adapter_facts(spec, known) if known else read_info(spec)


def _stray_models(graph: GraphSpec, models: Mapping[str, object]) -> list[Problem]:
    """A problem for each model that is handed over and that no backbone names."""
    known = [spec.source for spec in graph.backbones.values() if spec.given]
    problems = []
    for name in models:
        if GIVEN + name not in known:
            guess = closest(GIVEN + name, known)
            message = f"no backbone has the source {GIVEN + name!r}"
            hint = f"did you mean {guess!r}?" if guess else f'declare Backbone("{GIVEN}{name}")'
            problems.append(Problem("LM101", f"models {name!r}", message, hint))
    return problems


def _merged_keys(graph: GraphSpec) -> dict[str, str]:
    first: dict[str, str] = {}
    return {key: first.setdefault(spec.fingerprint, key) for key, spec in graph.backbones.items()}


def _unknown(agent: str, key: str, known: list[str]) -> Problem:
    guess = closest(key, known)
    listing = f"declared: {', '.join(known)}" if known else "none is declared"
    message, path = f"unknown backbone {key!r}", f"agent {agent}"
    if guess:
        return Problem("LM101", path, message, f"did you mean {guess!r}?")
    in_file = f"declare it under backbones ({listing}), as `{key}: {{source: …}}`"
    hint = (
        f'give lm.Backbone("{key}") in place of "{key}", or declare it in '
        f"Graph(backbones={{…}}) ({listing})"
    )
    return Problem("LM101", path, message, hint, in_file)


def _stray_facts(graph: GraphSpec, facts: Mapping[str, BackboneInfo]) -> list[Problem]:
    """Problems of facts: of the wrong type, or none for a backbone in use. Extras are allowed."""
    problems = [
        Problem("LM201", f"facts {name!r}", f"{info!r:.60} is not a BackboneInfo", "give one")
        for name, info in facts.items()
        if not isinstance(info, BackboneInfo)
    ]
    known = dict.fromkeys([*graph.backbones, *(spec.source for spec in graph.backbones.values())])
    if known and not problems and facts and not facts.keys() & known.keys():
        for name in facts:
            guess = closest(name, known)
            hint = f"did you mean {guess!r}?" if guess else f"known: {', '.join(known)}"
            message = "no backbone has that name or source"
            problems.append(Problem("LM101", f"facts {name!r}", message, hint))
    return problems


def _unused(graph: GraphSpec, merged: dict[str, str], users: dict[str, list[str]]) -> list[Problem]:
    return [
        Problem("LM203", f"backbone {key}", "no agent runs on it", "use it, or remove it")
        for key in graph.backbones
        if merged[key] not in users
    ]
