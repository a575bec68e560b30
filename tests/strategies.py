"""Random graphs for property tests: valid ones, and broken ones with the code they must raise."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import assume
from hypothesis import strategies as st

from latentmas.plan import BackboneInfo
from latentmas.spec import GraphSpec

Data = dict[str, Any]
Facts = dict[str, BackboneInfo]

NAMES = ("planner", "critic", "solver", "writer", "judge", "a1", "a2", "b", "_x", "Zed")
INPUTS = ("question", "topic", "passage")
TEXTS = ("rules", "clock")
LITERALS = ("Think. ", "Ünïcode ✓\n", "{ no jinja } ", "% # \\ \t", "<<latent:1:0>> ", "\n  x: y\n")
ANY_WIDTH = ("recursive", "linear", "linear_residual", "mlp", "mlp_residual")
STARTS = dict.fromkeys(ANY_WIDTH, ("default", "near_identity", "ridge"))
STARTS |= dict.fromkeys(("mlp", "identity", "soft_token"), ("default",))


def info(hidden_size: int = 16) -> BackboneInfo:
    """Facts of a backbone that exists nowhere."""
    return BackboneInfo(model_type="llama", hidden_size=hidden_size, vocab_size=64, num_layers=2)


@st.composite
def valid_graphs(draw: st.DrawFn, max_agents: int = 6) -> tuple[GraphSpec, Facts]:
    """A graph that compiles, and the facts of its backbones."""
    count = draw(st.integers(1, max_agents))
    agents = draw(st.permutations(NAMES))[:count]  # in topological order
    output = draw(st.integers(0, count - 1))
    place = st.integers(0, count - 1)
    extra = draw(st.lists(st.tuples(place, place, st.integers(0, 1)), max_size=count))
    pairs = _joined(draw, count, output) + [(i, j, 1 if i >= j else d) for i, j, d in extra]
    texts = draw(st.sampled_from(((), (), TEXTS[:1], TEXTS)))
    backbones, facts, width = _backbones(draw)
    home = {name: draw(st.sampled_from(sorted(width))) for name in agents}
    ends = [(agents[i], agents[j], delay) for i, j, delay in pairs]
    ends += [(text, draw(st.sampled_from(agents)), 0) for text in texts]
    edges = [dict(zip(("source", "target", "delay"), end, strict=True)) for end in ends]
    _links(draw, edges, home, width, texts)
    inputs = {name: draw(st.sampled_from(agents)) for name in INPUTS[: draw(st.integers(0, 3))]}
    places = {name: _slots(draw, [e for e in edges if e["target"] == name]) for name in agents}
    order = draw(st.permutations(agents))
    declared = [_agent(draw, name, home[name], places[name], inputs) for name in order]
    least = _rounds_needed(edges, agents, agents[output])
    least = max(least, 2) if any(edge["delay"] for edge in edges) else 1
    data = {
        "name": draw(st.sampled_from(("team", "Ünï team", "x: [y]"))),
        "inputs": list(inputs),
        "rounds": draw(st.integers(least, max(5, least))),
        "latent_steps": draw(st.integers(1, 8)),
        "backbones": {key: spec for key, spec in backbones.items() if key in home.values()},
        "agents": declared,
        "text_sources": [{"name": t, "text": draw(st.sampled_from((None, "t")))} for t in texts],
        "edges": draw(st.permutations(edges)),
        "output": agents[output],
    }
    return GraphSpec.parse(data), facts


def _joined(draw: st.DrawFn, count: int, output: int) -> list[tuple[int, int, int]]:
    """Edges that lead every agent to the output agent; backwards in the order means feedback."""
    joined, pairs = [output], []
    for i in (i for i in range(count) if i != output):
        j = draw(st.sampled_from(joined))
        pairs.append((i, j, 1 if i > j else draw(st.sampled_from((0, 0, 0, 1)))))
        joined.append(i)
    return pairs


def _backbones(draw: st.DrawFn) -> tuple[Data, Facts, dict[str, int]]:
    """Declarations, facts by key or by source, and widths by key; `twin` equals `one`."""
    keys = ("one", "two", "twin")[: draw(st.integers(1, 3))]
    source = {"one": "org/one", "two": "org/two", "twin": "org/one"}
    sizes = {key: draw(st.sampled_from((8, 16, 24))) for key in ("one", "two")}
    width = {key: sizes["one" if key == "twin" else key] for key in keys}
    by = source if draw(st.booleans()) else {key: key for key in keys}
    facts = {by[key]: info(width[key]) for key in keys}
    return {key: {"source": source[key]} for key in keys}, facts, width


def _link(draw: st.DrawFn, equal: bool) -> Data:
    kinds = (*ANY_WIDTH, "soft_token", *(("identity",) if equal else ()))
    kind = draw(st.sampled_from(kinds))
    options: Data = _soft_options(draw) if kind == "soft_token" else {}
    if kind in ("recursive", "mlp", "mlp_residual") and draw(st.booleans()):
        options["expansion"] = draw(st.integers(1, 3))
    if kind in ("recursive", "mlp_residual", "linear_residual") and draw(st.booleans()):
        options["residual"] = draw(st.sampled_from(("projection", "identity")[: 1 + equal]))
    scales = kind in ("recursive", "linear", "mlp")
    norms = (None, "none", "embedding")[: 2 + scales]
    link = {"kind": kind, "options": options, "init": draw(st.sampled_from(STARTS[kind]))}
    return link | {"norm": draw(st.sampled_from(norms))}


def _soft_options(draw: st.DrawFn) -> Data:
    """Some options of `soft_token`; the default of `residual` differs between edges and agents."""
    values: dict[str, st.SearchStrategy[Any]] = {
        "residual": st.sampled_from((True, False, None)),
        "temperature": st.sampled_from((0.1, 0.5, 1, 2.0)),
        "top_k": st.sampled_from((1, 5, 10**6, None)),
        "expansion": st.integers(1, 3),
    }
    chosen = draw(st.sets(st.sampled_from(sorted(values))))
    return {name: draw(values[name]) for name in sorted(chosen)}


def _links(
    draw: st.DrawFn, edges: list[Data], home: dict[str, str], width: dict[str, int], texts: Any
) -> None:
    """Give every edge a link; edges between the same backbones share one at times."""
    shared: dict[tuple[str, str], Data] = {}
    for edge in edges:
        if edge["source"] in texts or draw(st.integers(0, 4)) == 0:
            plain = edge["source"] in texts and draw(st.booleans())  # becomes text by itself
            edge["link"] = {} if plain else {"kind": "text"}
            continue
        ends = tuple(home[edge[end]].replace("twin", "one") for end in ("source", "target"))
        edge["link"] = _link(draw, width[home[edge["source"]]] == width[home[edge["target"]]])
        if draw(st.integers(0, 3)) == 0:
            edge["link"] = shared.setdefault(ends, edge["link"] | {"share": f"w-{'-'.join(ends)}"})


def _slots(draw: st.DrawFn, edges: list[Data]) -> list[tuple[str, int]]:
    """Name the slots of one agent's edges (some by the rules, some outright); slots with delays."""
    places, sources = [], [edge["source"] for edge in edges]
    for number, edge in enumerate(edges):
        plain = sources.count(edge["source"]) == 1 and edge["source"] != edge["target"]
        if plain and draw(st.booleans()):
            slot = edge["source"]
            edge["slot"] = draw(st.sampled_from((None, slot)))
        else:
            slot = edge["slot"] = f"slot{number}"
        places.append((slot, edge["delay"]))
    explicit = [e for e, (slot, _) in zip(edges, places, strict=True) if slot.startswith("slot")]
    if len(explicit) == 1 and draw(st.booleans()):
        explicit[0]["slot"] = None  # the only one left
    return places


def _agent(
    draw: st.DrawFn, name: str, key: str, places: list[tuple[str, int]], inputs: dict[str, str]
) -> Data:
    pieces = [_piece(draw, slot, delay) for slot, delay in places]
    pieces += [f"{{{{ {field} }}}} " for field, reader in inputs.items() if reader == name]
    pieces = list(draw(st.permutations([*pieces, draw(st.sampled_from(LITERALS))])))
    cut = len(pieces) if draw(st.booleans()) else draw(st.integers(0, len(pieces)))
    steps = draw(st.sampled_from((None, None, 1, 3, 0)))
    return {
        "name": name,
        "backbone": key,
        "prompt": "".join(pieces[:cut]),
        "system": "".join(pieces[cut:]) if cut < len(pieces) else None,
        "latent_steps": steps,
        "allow_empty": steps == 0,
        "inner": _link(draw, True),
        "max_new_tokens": draw(st.sampled_from((None, 5))),
    }


def _piece(draw: st.DrawFn, slot: str, delay: int) -> str:
    forms = (
        f"{{% if {slot} %}}T {{{{ {slot} }}}}{{% else %}}-{{% endif %}} ",
        f"{{{{ {slot} if {slot} else 'none' }}}} ",
        f"{{% if {slot} is defined %}}{{{{ {slot} }}}}{{% endif %}}\n",
    )
    return draw(st.sampled_from(forms if delay else (f"{slot}: {{{{ {slot} }}}}\n", *forms)))


def _rounds_needed(edges: list[Data], agents: list[str], output: str) -> int:
    """The fewest rounds after which every edge's message can have reached the output."""
    lag = {output: 0}
    for _ in agents:
        for edge in edges:
            if edge["target"] in lag and edge["source"] in agents:
                there = lag[edge["target"]] + edge["delay"]
                lag[edge["source"]] = min(there, lag.get(edge["source"], there))
    return max([lag[edge["target"]] + edge["delay"] + 1 for edge in edges], default=1)


# Each breaker changes the plain data of a graph and returns the code that must be reported, or None
# where the graph has no place for it.
Breaker = Callable[[Data], str | None]


def _loop(data: Data, form: str = "[% if x %][[ x ]][% endif %]", **link: Any) -> None:
    """Add a feedback edge from the first agent to itself, with a new slot (`x` in the form)."""
    slot = f"new{len(data['edges'])}"
    prompt = form.replace(" x", f" {slot}").replace("[", "{").replace("]", "}")
    _join(data, _first(data), _first(data), slot, prompt, delay=1, link=link)


def _join(data: Data, source: str, target: str, slot: Any, prompt: str, **fields: Any) -> None:
    _prompt(data, target, prompt)
    data["edges"].append({"source": source, "target": target, "slot": slot, "delay": 0, **fields})


def _prompt(data: Data, name: str, text: str) -> None:
    next(agent for agent in data["agents"] if agent["name"] == name)["prompt"] += text


def _add(data: Data, name: str, backbone: str = "") -> str:
    key = backbone or data["agents"][0]["backbone"]
    data["agents"].append({"name": name, "backbone": key, "prompt": ""})
    return name


def _set(code: str, part: str, **fields: Any) -> Breaker:
    """Change the graph itself (`part` empty), its first agent or its first edge."""

    def breaker(data: Data) -> str | None:
        for place in data[part][:1] if part else [data]:
            place.update(fields)
        return code if not part or data[part] else None

    return breaker


def _do(code: str, change: Callable[[Data], object]) -> Breaker:
    return lambda data: (change(data), code)[1]


def _first(data: Data) -> str:
    return str(data["agents"][0]["name"])


def _bind_twice(data: Data) -> str | None:
    named = [dict(edge) for edge in data["edges"] if edge["slot"]]
    data["edges"] += named[:1]
    return "LM104" if named else None


def _close_cycle(data: Data) -> str:
    ahead = [e["target"] for e in data["edges"] if not e["delay"] and e["source"] == _first(data)]
    _join(data, (ahead or [_first(data)])[0], _first(data), "back", "{{ back }}")
    return "LM110"


def _unguard(data: Data) -> str | None:
    late = [edge for edge in data["edges"] if edge["delay"] == 1 and edge["slot"]]
    for edge in late[:1]:
        _prompt(data, edge["target"], f"{{{{ {edge['slot']} }}}}")
    return "LM302" if late else None


def _narrow(data: Data, **link: Any) -> None:
    data["backbones"]["narrow"] = {"source": "org/narrow"}
    _join(data, _add(data, "thin", "narrow"), _first(data), "thin", "{{ thin }}", link=link)


def _text(data: Data) -> str:
    data["text_sources"].append({"name": "manual", "text": "m"})
    return "manual"


GUARDED = "{% if t %}{{ t }}{% endif %}"
BREAKERS: dict[str, Breaker] = {
    "unknown backbone": _set("LM101", "agents", backbone="nowhere"),
    "duplicate agent": _do("LM102", lambda d: d["agents"].append(dict(d["agents"][0]))),
    "remove edge": lambda d: "LM103" if d["edges"] and d["edges"].pop() else None,
    "unbound variable": _do("LM103", lambda d: _prompt(d, _first(d), "{{ who }}")),
    "slot bound twice": _bind_twice,
    "rename slot": _set("LM105", "edges", slot="nowhere"),
    "slot unnamed": _do("LM106", lambda d: _join(d, _add(d, "stranger"), _first(d), None, "")),
    "unknown source": _do("LM107", lambda d: _join(d, "ghost", _first(d), "g", "{{ g }}")),
    "reserved name": _do("LM108", lambda d: _add(d, "loop")),
    "forward cycle": _close_cycle,
    "no output": _set("LM111", "", output=[]),
    "two outputs": _do("LM111", lambda d: d.update(output=[_first(d), _first(d)])),
    "dead end": _do("LM112", lambda d: _join(d, _first(d), _add(d, "dead"), "x", "{{ x }}")),
    "no rounds": _set("LM113", "", rounds=0),
    "empty by accident": _set("LM113", "agents", latent_steps=0, allow_empty=False),
    "delay of two": _set("LM113", "edges", delay=2),
    "feedback in one round": _do("LM114", lambda d: (_loop(d), d.update(rounds=1))),
    "unused input": _do("LM115", lambda d: d["inputs"].append("unused")),
    "unused text": _do("LM115", _text),
    "disconnected agent": _do("LM117", lambda d: _add(d, "hermit")),
    "identity of two widths": _do("LM120", lambda d: _narrow(d, kind="identity")),
    "unknown kind": _do("LM121", lambda d: _loop(d, kind="recursiv")),
    "unknown option": _do("LM121", lambda d: _loop(d, options={"expnsion": 2})),
    "unknown start": _do("LM121", lambda d: _loop(d, kind="mlp", init="ridge")),
    "unscalable": _do("LM121", lambda d: _loop(d, kind="identity", norm="embedding")),
    "unequal shares": _do(
        "LM122", lambda d: (_loop(d, share="w"), _loop(d, share="w", kind="mlp"))
    ),
    "text feeds back": _do("LM123", lambda d: _join(d, _text(d), _first(d), "t", GUARDED, delay=1)),
    "unused backbone": _do("LM203", lambda d: d["backbones"].update(idle={"source": "org/idle"})),
    "syntax error": _do("LM301", lambda d: _loop(d, "[% if x")),
    "unsafe access": _do("LM301", lambda d: _prompt(d, _first(d), "{{ ''.__class__ }}")),
    "unguarded": _unguard,
    "filtered slot": _do("LM303", lambda d: _loop(d, "[% if x %][[ x|upper ]][% endif %]")),
    "never placed": _do("LM303", lambda d: _loop(d, "[% if x %]![% endif %]")),
}


@st.composite
def broken_graphs(draw: st.DrawFn, max_breaks: int = 3) -> tuple[GraphSpec, Facts, list[str]]:
    """A graph with one to `max_breaks` mistakes; with one, its code must be among the problems."""
    spec, facts = draw(valid_graphs())
    data, codes = json.loads(spec.to_json()), []
    for name in draw(st.lists(st.sampled_from(sorted(BREAKERS)), min_size=1, max_size=max_breaks)):
        codes.append(BREAKERS[name](data))
    expected = [code for code in codes if code]
    assume(expected)
    return GraphSpec.parse(data), facts | {"org/narrow": info(12)}, expected
