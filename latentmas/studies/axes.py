"""What a sweep can vary, by name, and what each value changes in a team or in its training."""

from __future__ import annotations

import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Union, get_args, get_origin, get_type_hints

from latentmas.errors import LatentMASError, closest
from latentmas.links import link_kinds, link_sketch
from latentmas.spec import TEXT, GraphSpec, LinkSpec
from latentmas.studies.cells import Setting
from latentmas.training.loops import in_order

__all__ = ["Axis", "changed_graph", "changed_training", "read_axis"]

LinkEdit = Callable[[LinkSpec], LinkSpec | None]
"""Takes the declaration of a link; returns the changed one, or None where nothing can change."""
RESERVED = {
    "seed": "give the seeds with seeds= (--seeds)",
    "data_seed": "give the seeds with seeds= (--seeds)",
    "output_dir": "each cell has its own folder in the folder of the study",
}
"""Fields of a training that the sweep itself sets → what to do."""
_FROM_ONE = ("gradient_accumulation_steps", "max_steps", "per_device_train_batch_size")
_SIMPLE = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}


@dataclass(frozen=True)
class Axis:
    """One thing that a sweep varies."""

    name: str
    """Name as the user gives it."""
    loop: str = ""
    """Loop whose configuration it changes; empty for a change of the graph."""
    field: str = ""
    """Field of that configuration, option of links, or name of a backbone."""
    kinds: tuple[type, ...] = ()
    """Types that its values may have; empty if whoever reads them checks."""
    least: int | None = None
    """Smallest value of a number."""

    def problem(self, value: Setting) -> str | None:
        """What is wrong with a value, before anything is built from it."""
        if self.kinds and not _fits(value, self.kinds):
            wanted = " or ".join(_SIMPLE[kind] for kind in self.kinds if kind in _SIMPLE)
            return f"takes {wanted}, found {value!r}"
        if self.least is not None and isinstance(value, int) and value < self.least:
            return f"takes {self.least} or more, found {value}"
        if self.name in ("link", "inner"):
            return _kind_problem(str(value), text=self.name == "link")
        return None


GRAPH: dict[str, Axis] = {
    axis.name: axis
    for axis in (
        Axis("backbone", kinds=(str,)),
        Axis("link", kinds=(str,)),
        Axis("inner", kinds=(str,)),
        Axis("init", kinds=(str,)),
        Axis("expansion", kinds=(int,), least=1),
        Axis("latent_steps", kinds=(int,), least=0),
        Axis("max_new_tokens", kinds=(int,), least=1),
        Axis("rounds", kinds=(int,), least=1),
    )
}
"""Changes of the graph by name, in the order in which they are made, except for options."""
TRAIN_ROUNDS = Axis("train_rounds", loop="outer", field="rounds", kinds=(int,), least=1)


def read_axis(
    name: str, spec: GraphSpec, over: Mapping[str, Iterable[Setting]] | None = None
) -> Axis:
    """What a name stands for.

    Args:
        name: Name of what is varied, such as `"link"`, `"link.temperature"`, `"outer.max_steps"`.
        spec: The graph.
        over: All names and values, since kinds of links that are varied too have other options.

    Raises:
        LatentMASError: the name is unknown, or belongs to what a sweep sets itself.
    """
    if name in GRAPH:
        return GRAPH[name]
    if name == TRAIN_ROUNDS.name:
        return TRAIN_ROUNDS
    head, dot, field = name.partition(".")
    if dot and head in ("link", "inner"):
        kinds = [str(kind) for kind in (over or {}).get(head, ()) if kind in link_kinds]
        _check_option(field, kinds or _kinds_of(spec, inner=head != "link", outer=head != "inner"))
        return Axis(name, field=field)
    if dot and head == "backbone":
        return Axis(name, field=_backbone_key(field, spec), kinds=(str,))
    if dot and head in in_order():
        return _loop_axis(head, field)
    raise LatentMASError(f"cannot be varied; {_instead(name)}")


def changed_graph(spec: GraphSpec, settings: Mapping[Axis, Setting]) -> dict[str, Any]:
    """The fields of a graph that settings change.

    Args:
        spec: The declared graph.
        settings: Values; those of trainings are passed over.

    Returns:
        Arguments of `Graph.replace`.

    Raises:
        LatentMASError: a setting changes nothing in this graph.
    """
    found = spec
    order = {name: place for place, name in enumerate(GRAPH)}
    own = [axis for axis in settings if not axis.loop]
    # Kinds come first, since options belong to a kind.
    for axis in sorted(own, key=lambda axis: order.get(axis.name, order["init"])):
        found = _apply(found, axis, settings[axis])
    names = ("backbones", "agents", "edges", "latent_steps", "rounds")
    return {n: getattr(found, n) for n in names if getattr(found, n) != getattr(spec, n)}


def changed_training(
    training: Mapping[str, Any], settings: Mapping[Axis, Setting]
) -> dict[str, Any]:
    """Keywords of `lm.train` with the values of settings.

    Args:
        training: Keywords that all cells share.
        settings: Values; those of graphs are passed over.
    """
    loops = {name: dict(own) for name, own in (training.get("settings") or {}).items()}
    for axis, value in settings.items():
        if axis.loop:
            loops.setdefault(axis.loop, {})[axis.field] = value
    return {**training, "settings": loops} if loops else dict(training)


def _apply(spec: GraphSpec, axis: Axis, value: Any) -> GraphSpec:
    """A graph with one setting changed; nothing is validated here."""
    name = axis.name
    if name == "latent_steps":
        agents = [agent.model_copy(update={"latent_steps": None}) for agent in spec.agents]
        return spec.model_copy(update={"agents": tuple(agents), "latent_steps": value})
    if name == "rounds":
        return spec.model_copy(update={"rounds": value})
    if name == "max_new_tokens":
        agents = [agent.model_copy(update={"max_new_tokens": value}) for agent in spec.agents]
        return spec.model_copy(update={"agents": tuple(agents)})
    if name.partition(".")[0] == "backbone":
        keys = [axis.field] if axis.field else list(spec.backbones)
        changed = {key: spec.backbones[key].model_copy(update={"source": value}) for key in keys}
        return spec.model_copy(update={"backbones": {**spec.backbones, **changed}})
    return _edited(spec, axis, value)


def _edited(spec: GraphSpec, axis: Axis, value: Any) -> GraphSpec:
    """A graph whose links have another kind, option or initialisation.

    Raises:
        LatentMASError: no link takes it.
    """
    head, _, option = axis.name.partition(".")
    edit = _link_edit(head if option == "" else "option", option, value)
    count, agents, edges = 0, list(spec.agents), list(spec.edges)
    speakers = {agent.name for agent in agents}
    for place, agent in enumerate(agents):
        changed = edit(agent.inner) if head != "link" else None
        if changed is not None:
            agents[place], count = agent.model_copy(update={"inner": changed}), count + 1
    for place, edge in enumerate(edges):
        latent = edge.source in speakers and edge.link.kind != TEXT
        changed = edit(edge.link) if head != "inner" and latent else None
        if changed is not None:
            edges[place], count = edge.model_copy(update={"link": changed}), count + 1
    if count == 0:
        kinds = _kinds_of(spec, inner=head != "link", outer=head != "inner")
        raise LatentMASError(_no_link(axis, option, value, kinds))
    return spec.model_copy(update={"agents": tuple(agents), "edges": tuple(edges)})


def _link_edit(what: str, option: str, value: Any) -> LinkEdit:
    def kind(link: LinkSpec) -> LinkSpec:
        kept = link.options if link.kind == value else {}
        return link.model_copy(update={"kind": value, "options": kept})

    def set_option(link: LinkSpec) -> LinkSpec | None:
        name = option or what
        if link.kind == TEXT or name not in link_sketch(link.kind).options.model_fields:
            return None
        return link.model_copy(update={"options": {**link.options, name: value}})

    def init(link: LinkSpec) -> LinkSpec | None:
        if link.kind == TEXT or value not in link_sketch(link.kind).inits:
            return None
        return link.model_copy(update={"init": value})

    return {"link": kind, "inner": kind, "init": init}.get(what, set_option)


def _check_option(name: str, kinds: list[str]) -> None:
    """Check that a kind has an option.

    Raises:
        LatentMASError: none of them has it.
    """
    known = sorted({one for kind in kinds for one in link_sketch(kind).options.model_fields})
    if name in known:
        return
    guess = closest(name, known)
    hint = f"did you mean {guess!r}?" if guess else f"their options: {', '.join(known) or 'none'}"
    there = ", ".join(kinds) or "the graph has none"
    raise LatentMASError(f"no link has the option {name!r} (kinds: {there}); {hint}")


def _no_link(axis: Axis, option: str, value: Any, kinds: list[str]) -> str:
    """Why a setting of links changes nothing."""
    there = ", ".join(kinds) or "none"
    if axis.name in ("link", "inner"):
        return f"{axis.name} has no effect, since the graph has no latent edges"
    if axis.name == "init":
        known = sorted({one for kind in kinds for one in link_sketch(kind).inits})
        return f"no link can start with init={value!r} (kinds: {there}); known: {', '.join(known)}"
    return f"{axis.name} has no effect, since no link has the option {option or axis.name!r} " + (
        f"(kinds: {there})"
    )


def _kinds_of(spec: GraphSpec, *, inner: bool, outer: bool) -> list[str]:
    """Kinds of the links of a graph, each once."""
    speakers = {agent.name for agent in spec.agents}
    own = [agent.inner.kind for agent in spec.agents] if inner else []
    own += [edge.link.kind for edge in spec.edges if edge.source in speakers] if outer else []
    return [kind for kind in dict.fromkeys(own) if kind != TEXT]


def _backbone_key(name: str, spec: GraphSpec) -> str:
    """Key of a backbone that is named by itself or by an agent."""
    if name in spec.backbones:
        return name
    for agent in spec.agents:
        if agent.name == name:
            return agent.backbone
    known = [*spec.backbones, *(agent.name for agent in spec.agents)]
    guess = closest(name, known)
    hint = f"did you mean 'backbone.{guess}'?" if guess else f"there are: {', '.join(known)}"
    raise LatentMASError(f"names neither a backbone nor an agent; {hint}")


def _loop_axis(loop: str, field: str) -> Axis:
    """A field of a loop's configuration."""
    kind = in_order()[loop].parts()[1]
    known = [one.name for one in fields(kind) if one.init]
    if field in RESERVED:
        raise LatentMASError(f"cannot be varied; {RESERVED[field]}")
    if field not in known:
        guess = closest(field, known)
        hint = f"did you mean '{loop}.{guess}'?" if guess else "see its documentation"
        raise LatentMASError(f"{kind.__name__} has no field {field!r}; {hint}")
    hint = get_type_hints(kind)[field]
    whole = get_origin(hint) in (Union, types.UnionType)
    kinds = get_args(hint) if whole else (hint,)
    simple = all(one in _SIMPLE or one is types.NoneType for one in kinds)
    least = 1 if field in _FROM_ONE else None
    return Axis(f"{loop}.{field}", loop, field, kinds=kinds if simple else (), least=least)


def _kind_problem(value: str, *, text: bool) -> str | None:
    known = [*link_kinds.names(), *([TEXT] if text else [])]
    if value in known:
        return None
    guess = closest(value, known)
    hint = f"did you mean {guess!r}?" if guess else f"known: {', '.join(known)}"
    return f"{value!r} is not a link kind; {hint}"


def _fits(value: Setting, kinds: Iterable[type]) -> bool:
    allowed = tuple(kinds)
    if isinstance(value, bool):
        return bool in allowed
    return isinstance(value, allowed) or (float in allowed and isinstance(value, int))


def _instead(name: str) -> str:
    """What else to vary, for a name that is unknown."""
    known = [*GRAPH, TRAIN_ROUNDS.name]
    head, dot, field = name.partition(".")
    heads = ["link", "inner", "backbone", *in_order()]
    guess = closest(name, known) if not dot else closest(head, heads)
    if guess:
        return f"did you mean {f'{guess}.{field}' if dot else guess!r}?"
    owners = [] if dot else _loops_with(name)
    if owners:
        return f"did you mean {' or '.join(repr(f'{loop}.{name}') for loop in owners)}?"
    return (
        f"known: {', '.join(known)}, link.OPTION, inner.OPTION, backbone.NAME, and LOOP.FIELD for "
        f"the loops {', '.join(in_order())}"
    )


def _loops_with(field: str) -> list[str]:
    """Loops whose configurations have a field."""
    found = []
    for name, loop in in_order().items():
        if field in {one.name for one in fields(loop.parts()[1]) if one.init}:
            found.append(name)
    return found
