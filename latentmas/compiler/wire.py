"""Wire: create the link table, with widths, resolved options and exact sizes."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from typing import NamedTuple

from pydantic import ValidationError

from latentmas.backbones import parts_of
from latentmas.errors import Problem, UnknownNameError, closest
from latentmas.links import LinkSketch, link_sketch
from latentmas.plan import LinkPlan, PlanBackbone
from latentmas.spec import TEXT, GraphSpec, LinkSpec

__all__ = ["wire"]


class _Request(NamedTuple):
    """A link requested by an agent or an edge."""

    role: str
    user: str
    spec: LinkSpec
    source: str
    target: str

    @property
    def id(self) -> str:
        return f"shared.{self.spec.share}" if self.spec.share else f"{self.role}.{self.user}"

    @property
    def path(self) -> str:
        return f"inner link of {self.user}" if self.role == "inner" else f"edge {self.user}"


def wire(
    graph: GraphSpec, backbones: Mapping[str, PlanBackbone]
) -> tuple[tuple[LinkPlan, ...], list[Problem]]:
    """Build the link table.

    An agent with an outgoing latent edge has an inner link; each latent edge has an outer link;
    links with the same `share` name are merged.

    Requires: slots resolved. Ensures: one entry per id, widths bridged.

    Returns:
        The links, and LM120, LM121, LM122 and LM124 problems.
    """
    links: dict[str, LinkPlan] = {}
    problems: list[Problem] = []
    probed: _Probed = {}
    provided = _provided(backbones)
    for request in _requests(graph):
        if request.source not in backbones or request.target not in backbones:
            continue
        made = _lack(request, backbones, provided) or _make(request, backbones, probed)
        if isinstance(made, Problem):
            problems.append(made)
        elif request.id not in links:
            links[request.id] = made
        else:
            problem = _disagreement(links[request.id], made, request)
            problems += [problem] if problem else []
            users = links[request.id].users + made.users
            links[request.id] = links[request.id].model_copy(update={"users": users})
    return tuple(links.values()), problems


def _requests(graph: GraphSpec) -> list[_Request]:
    backbone = {agent.name: agent.backbone for agent in graph.agents}
    latent = [edge for edge in graph.edges if edge.link.kind != TEXT]
    senders = {edge.source for edge in latent}
    inner = [
        _Request("inner", agent.name, agent.inner, agent.backbone, agent.backbone)
        for agent in graph.agents
        if agent.name in senders
    ]
    outer = [
        _Request("outer", edge.id, edge.link, backbone[edge.source], backbone[edge.target])
        for edge in latent
        if edge.source in backbone and edge.target in backbone
    ]
    return inner + outer


_Probed = dict[tuple[str, str, int, int], tuple[int, bool]]
"""Results of `LinkSketch.measure` by kind, options and widths, so that each is measured once."""


def _make(
    request: _Request, backbones: Mapping[str, PlanBackbone], probed: _Probed
) -> LinkPlan | Problem:
    in_dim = backbones[request.source].info.hidden_size
    out_dim = backbones[request.target].info.hidden_size
    spec = request.spec
    try:
        kind = link_sketch(spec.kind)
    except UnknownNameError as error:
        hint = "use one of these, or register your own with @link_kinds.register"
        in_file = "use one of these; `latentmas --plugin FILE.py` adds a kind of your own"
        return Problem("LM121", request.path, str(error), hint, in_file)
    try:
        options = kind.resolve(request.role, spec.options, in_dim, out_dim)
    except ValidationError as error:
        return _option_problem(request, kind, error)
    except ValueError as error:
        message = f"{error} (from {request.source!r} to {request.target!r})"
        hint = 'link="recursive" or "linear" bridges any widths'
        in_file = "`link: {kind: recursive}` or `{kind: linear}` bridges any widths"
        return Problem("LM120", request.path, message, hint, in_file)
    if spec.init not in kind.inits:
        message = f"kind {spec.kind!r} has no initialisation {spec.init!r}"
        found = f"choose one of {', '.join(sorted(kind.inits))}, or another kind"
        hint, in_file = (f"{found}, such as {other}" for other in _recursive(request))
        return Problem("LM121", request.path, message, hint, in_file)
    form = (spec.kind, options.model_dump_json(), in_dim, out_dim)
    try:
        if form not in probed:
            probed[form] = kind.measure(options, in_dim, out_dim)
    except (RuntimeError, OverflowError) as error:
        message = f"kind {spec.kind!r} cannot be built with these options: {error}"
        return Problem("LM121", request.path, message, _known(kind))
    n_parameters, scales = probed[form]
    if spec.norm == "embedding" and not scales:
        message = f"kind {spec.kind!r} cannot scale its output to the receiver's norm"
        hint, in_file = _recursive(request)
        hint, in_file = f'norm="none", or {hint}', f"write `norm: none`, or {in_file}"
        return Problem("LM121", request.path, message, hint, in_file)
    return LinkPlan(
        id=request.id,
        role="inner" if request.role == "inner" else "outer",
        kind=spec.kind,
        options=options.model_dump(),
        init=spec.init,
        norm=spec.norm or ("embedding" if scales else "none"),
        in_dim=in_dim,
        out_dim=out_dim,
        n_parameters=n_parameters,
        source=request.source,
        target=request.target,
        users=(request.user,),
        differentiable=False,
        needs=tuple(sorted(kind.needs)),
    )


def _provided(backbones: Mapping[str, PlanBackbone]) -> dict[str, frozenset[str]]:
    """Parts that each backbone provides to links; asked once, as it looks through entry points."""
    found: dict[str, frozenset[str]] = {}
    for key, backbone in backbones.items():
        with suppress(UnknownNameError):  # reported by loading
            found[key] = parts_of(backbone.info.model_type, backbone.spec.family)
    return found


def _lack(
    request: _Request,
    backbones: Mapping[str, PlanBackbone],
    provided: Mapping[str, frozenset[str]],
) -> Problem | None:
    """LM124 if the families of the two backbones lack a part that the kind needs."""
    try:
        needs = link_sketch(request.spec.kind).needs
    except UnknownNameError:  # LM121 says so
        return None
    for key, parts in ((request.source, {"head", "tokenizer"}), (request.target, _READ)):
        missing = sorted((needs & parts) - provided[key]) if key in provided else []
        if missing:
            message = (
                f"kind {request.spec.kind!r} needs {' and '.join(missing)} of backbone {key!r}, "
                f"which models of type {backbones[key].info.model_type!r} do not provide"
            )
            return Problem("LM124", request.path, message, *_recursive(request))
    return None


_READ = {"embeddings", "tokenizer"}
"""Parts of its receiver that a link may use."""


def _recursive(request: _Request) -> tuple[str, str]:
    """How to write the kind `recursive`, which needs nothing of backbones, in Python and a file."""
    keyword = "inner" if request.role == "inner" else "link"
    return f'{keyword}="recursive"', f"`{keyword}: {{kind: recursive}}`"


def _disagreement(first: LinkPlan, other: LinkPlan, request: _Request) -> Problem | None:
    fields = ("role", "kind", "options", "init", "norm", "in_dim", "out_dim", "source", "target")
    for field in fields:
        mine, theirs = getattr(other, field), getattr(first, field)
        if mine != theirs:
            message = (
                f"shares {request.spec.share!r} with {first.users[0]}, but {field} is {mine}, "
                f"not {theirs}"
            )
            return Problem(
                "LM122", request.path, message, "make them equal, or give it another share name"
            )
    return None


KEYWORDS = ("link", "init", "norm", "share", "replace")
"""Arguments of `Graph.connect` other than the options of a kind."""


def _option_problem(request: _Request, kind: LinkSketch, error: ValidationError) -> Problem:
    """LM121 for options that are unknown to the kind or invalid."""
    told = error.errors(include_url=False)
    options = list(kind.options.model_fields)
    unknown = [str(e["loc"][0]) for e in told if e["type"] == "extra_forbidden"]
    parts = [f"unknown option {name!r}" for name in unknown]
    parts += [
        f"option {'.'.join(map(str, e['loc']))}: {e['msg']}"
        for e in told
        if e["type"] != "extra_forbidden"
    ]
    message = f"kind {request.spec.kind!r}: {'; '.join(parts)}"
    guesses = [(name, closest(name, [*KEYWORDS, *options])) for name in unknown]
    values = [(guess, request.spec.options[name]) for name, guess in guesses if guess]
    hint = [f"did you mean {guess}={value!r}?" for guess, value in values]
    in_file = [f"did you mean `{guess}: {value}`?" for guess, value in values]
    known = _known(kind)
    return Problem(
        "LM121", request.path, message, " ".join([*hint, known]), " ".join([*in_file, known])
    )


def _known(kind: LinkSketch) -> str:
    names = ", ".join(kind.options.model_fields) or "none"
    return f"the options of this kind are: {names}"
