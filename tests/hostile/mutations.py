"""Damage drawn by hypothesis: to bytes, to JSON and YAML data, to what is inside an archive."""

from __future__ import annotations

import copy
import io
import json
import zipfile
from collections.abc import Callable
from typing import Any

import yaml
from hypothesis import strategies as st

__all__ = [
    "damaged_archive",
    "damaged_bytes",
    "damaged_json",
    "damaged_lines",
    "damaged_template",
    "damaged_yaml",
]

Draw = Callable[..., Any]

PLACE = st.integers(0, 2**20)
COUNT = st.integers(1, 4)
BYTES = st.sampled_from(
    [
        *(b"", b"\0", b"\xff", b"\x80", b"\n", b"\r", b"{", b"}", b"[", b"]", b'"', b"\\", b","),
        *(b":", b"-", b"&a ", b"*a", b"!!", b"{{", b"}}", b"{%", b"%}", b"|", b"'", b"#", b"%"),
        *(b"NaN", b"1e999", b"-1", b"9" * 30, b"0x", b"null", b"\xed\xa0\x80", b"\\ud800"),
        *(b"../", b"/", b"PK\x03\x04", b"\x80\x02", b"c", b"R", b".", b"(", b"t", b"}", b"q\0"),
    ]
)
JUNK = st.sampled_from(
    [
        *(None, True, False, 0, 1, -1, 2**31, 2**63, -(2**64), 10**40, 0.0, -0.5, 1e308, 1e-308),
        *(float("nan"), float("inf"), "", "a", "x" * 300, "../x", "/etc/passwd", "a\0b", "é", "\n"),
        *("{{ x }}", "{% if %}", "recursive", "text", "F32", "I64", "1.5", "true", "planner"),
        *([], {}, [[]], [None], {"a": 1}, {"": None}, [1, 2, 3], [0, 2**40], {"file": "../x"}),
        *([[[[[[1]]]]]], {"a": {"b": {"c": {}}}}, ["planner"], {"kind": "linear"}, [2**62, 2**62]),
    ]
)


class Seeds(list[bytes]):
    """Contents of sound files; hypothesis prints it."""

    def __repr__(self) -> str:
        return f"<{len(self)} seeds>"


@st.composite
def damaged_bytes(draw: Draw, seeds: Seeds) -> bytes:
    """A seed with a few bytes flipped, put in, taken out, repeated, or cut off."""
    raw = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(COUNT)):
        kind = draw(st.sampled_from(["flip", "insert", "replace", "delete", "repeat", "cut"]))
        place = draw(PLACE) % (len(raw) + 1)
        length = draw(st.integers(1, 64))
        if kind == "flip" and place < len(raw):
            raw[place] ^= 1 << (length % 8)
        elif kind == "insert":
            raw[place:place] = draw(BYTES)
        elif kind == "replace":
            found = draw(BYTES)
            raw[place : place + len(found)] = found
        elif kind == "delete":
            del raw[place : place + length]
        elif kind == "repeat":
            raw[place:place] = raw[place : place + length] * 3
        elif kind == "cut" and draw(st.booleans()):
            del raw[place:]
    return bytes(raw)


def _places(data: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of everything in plain data."""
    found = [path] if path else []
    items: Any = data.items() if isinstance(data, dict) else ()
    for key, value in enumerate(data) if isinstance(data, list) else items:
        found += _places(value, (*path, key))
    return found


def _at(data: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        data = data[key]
    return data


def _damage(draw: Draw, seed: Any) -> Any:
    data = copy.deepcopy(seed)
    for _ in range(draw(COUNT)):
        places = _places(data)
        if not places:
            break
        path = places[draw(PLACE) % len(places)]
        other = copy.deepcopy(_at(data, places[draw(PLACE) % len(places)]))
        home, key = _at(data, path[:-1]), path[-1]
        kind = draw(st.sampled_from(["junk", "junk", "other", "delete", "rename", "more", "near"]))
        if kind == "junk":
            home[key] = copy.deepcopy(draw(JUNK))
        elif kind == "other":
            home[key] = other
        elif kind == "delete":
            del home[key]
        elif kind == "rename" and isinstance(home, dict):
            home[str(draw(JUNK))] = home.pop(key)
        elif kind == "more":
            home.insert(key, other) if isinstance(home, list) else home.update(more=other)
        elif kind == "near" and isinstance(home[key], int):
            home[key] += draw(st.sampled_from([-1, 1, 10**9]))
    return data


@st.composite
def damaged_json(draw: Draw, seeds: Seeds) -> bytes:
    """Half of the time other data in the same form, else other bytes."""
    if draw(st.booleans()):
        return draw(damaged_bytes(seeds))
    data = _damage(draw, json.loads(draw(st.sampled_from(seeds))))
    return json.dumps(data).encode("utf-8", "surrogatepass")


@st.composite
def damaged_yaml(draw: Draw, seeds: Seeds) -> bytes:
    """The same for YAML."""
    if draw(st.booleans()):
        return draw(damaged_bytes(seeds))
    data = _damage(draw, yaml.safe_load(draw(st.sampled_from(seeds))))
    return yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "surrogatepass")


@st.composite
def damaged_lines(draw: Draw, seeds: Seeds) -> bytes:
    """The same for JSON, a value a line."""
    if draw(st.booleans()):
        return draw(damaged_bytes(seeds))
    lines = draw(st.sampled_from(seeds)).splitlines()
    for _ in range(draw(COUNT)):
        place = draw(PLACE) % len(lines)
        lines[place] = json.dumps(_damage(draw, [json.loads(lines[place])])[:1]).encode()[1:-1]
        lines[place] = lines[place] or b"{}"
    return b"\n".join(lines)


@st.composite
def damaged_header(draw: Draw, seeds: Seeds) -> bytes:
    """A safetensors file with another header, other bytes, or another length in front."""
    if draw(st.integers(0, 2)) == 0:
        return draw(damaged_bytes(seeds))
    raw = draw(st.sampled_from(seeds))
    length = int.from_bytes(raw[:8], "little")
    header = json.dumps(_damage(draw, json.loads(raw[8 : 8 + length]))).encode()
    told = len(header) + draw(st.sampled_from([0, 0, 0, 0, -1, 1, 2**40]))
    weights = (
        draw(damaged_bytes(Seeds([raw[8 + length :]])))
        if draw(st.booleans())
        else raw[8 + length :]
    )
    return max(told, 0).to_bytes(8, "little") + header + weights


@st.composite
def damaged_archive(draw: Draw, seeds: Seeds) -> bytes:
    """A `.pt` file with a damaged pickle, damaged numbers, or damaged itself."""
    raw = draw(st.sampled_from(seeds))
    if draw(st.integers(0, 3)) == 0:
        return draw(damaged_bytes(Seeds([raw])))
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    names = sorted(parts)
    pickles = [name for name in names if name.endswith("data.pkl")]
    name = draw(st.sampled_from([*pickles * 5, *names]))
    parts[name] = draw(damaged_bytes(Seeds([parts[name]])))
    if draw(st.integers(0, 9)) == 0:
        parts[draw(st.sampled_from(["a/data.pkl", "../x", "/x", "archive/more"]))] = b"x"
    file = io.BytesIO()
    how = draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    with zipfile.ZipFile(file, "w", how) as archive:
        for part, content in parts.items():
            archive.writestr(part, content)
    return file.getvalue()


FILTERS = (
    *("upper", "list", "map('upper')", "join(question)", "replace('', question)", "tojson", "sort"),
    *("batch(3)", "format(1)", "indent(9)", "attr('__class__')", "sum", "int", "pprint", "random"),
    *("wordwrap(1)", "urlize", "groupby(0)", "unique", "length", "first", "d(x)", "select('odd')"),
)
PIECES = st.sampled_from(
    [
        *("{{ ", " }}", "{% ", " %}", "{#", "#}", "{%- ", " -%}", "question", "feedback", "plan"),
        *("{% if question %}", "{% else %}", "{% elif 1 %}", "{% endif %}", "{% endfor %}", "x"),
        *("{% for x in question %}", "{% for a, b in {1: 2}.items() recursive %}", "n", "\n", "é"),
        *(
            "{{ loop(x) }}",
            "{% set x = question %}",
            "{% set n = namespace(a=1) %}",
            "(",
            ")",
            ", ",
        ),
        *("{% set n.a = n.a ~ n.a %}", "{% macro f(a, b=2) %}", "{% endmacro %}", "{{ f(1) }}"),
        *("{% call f(1) %}", "{% endcall %}", "{% block c %}", "{% endblock %}", "{{ self.c() }}"),
        *("{% filter upper %}", "{% endfilter %}", "{% set y %}", "{% endset %}", "{% raw %}"),
        *(
            "{% endraw %}",
            "{% with a = 1 %}",
            "{% endwith %}",
            "{% include 'x' %}",
            "{{ caller() }}",
        ),
        *("{{ super() }}", "<<latent:1:0>>", "range(99999)", "9999999999", "1.5", "'a'", "[1, 2]"),
        *("{'a': [1]}", "(1,)", "none", "true", " ~ ", " + ", " * ", " ** ", " % ", " // ", " in "),
        *(" == ", " < ", " and ", " not ", " if ", " else ", " is defined", " is divisibleby 0"),
        *(
            " is mapping",
            ".split()",
            ".format(question)",
            ".items()",
            "[1:]",
            "[::-1]",
            "[0]",
            "()",
        ),
        *(
            "[0]",
            "()",
            ".__class__",
            ".encode('idna')",
            ".join('ab')",
            ".zfill(999)",
            ".translate({97: 'b'})",
        ),
        *(f"|{name}" for name in FILTERS),
    ]
)


@st.composite
def damaged_template(draw: Draw, seeds: Seeds) -> bytes:
    """A template put together from pieces, or a seed with some put in."""
    pieces = draw(st.lists(PIECES, min_size=1, max_size=30))
    if draw(st.booleans()):
        return "".join(pieces).encode()
    text = draw(st.sampled_from(seeds)).decode()
    for piece in pieces[:4]:
        place = draw(PLACE) % (len(text) + 1)
        text = text[:place] + piece + text[place:]
    return text.encode()
