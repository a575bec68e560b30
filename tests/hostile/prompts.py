"""Hostile prompts: escapes from the sandbox, and templates that take all time or memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tests.hostile.base import PROMPT, Case

OVER = "more work than a prompt may"
LONG = "a text of over|over .* bytes of text"
WIDE = "a width, a count or a precision"

ESCAPES = {
    "attribute of Python's inside": ("{{ ''.__class__.__mro__ }}", "unsafe"),
    "the same through a filter": ("{{ ''|attr('__cl' ~ 'ass__') }}", "unsafe"),
    "the same through a format": ("{{ '{0.__class__}'.format('') }}", "unsafe"),
    "globals of a function": ("{{ cycler.__init__.__globals__.os.popen('id').read() }}", "unsafe"),
    "another file": ("{% include '/etc/passwd' %}", "cannot load other templates"),
    "a module": ("{% import 'os' as os %}", "cannot load other templates"),
    "a parent template": ("{% extends 'x' %}", "cannot load other templates"),
}
HUNDRED_THOUSAND = "{% for a in range(100000) %}"
NESTED = HUNDRED_THOUSAND + "{% for b in range(100000) %}"
ENDS = "{% endfor %}{% endfor %}"
GROW = "{% set n = namespace(x=SEED) %}{% for i in range(64) %}{% set n.x = STEP %}{% endfor %}USE"


def grown(seed: str, step: str, use: str = "") -> str:
    return GROW.replace("SEED", seed).replace("STEP", step).replace("USE", use)


BOMBS = {
    "loop of a billion": ("{% for i in range(1000000000) %}x{% endfor %}", "counts to 1000000000"),
    "loops of ten billion": (f"{NESTED}x{ENDS}", OVER),
    "loops of ten billion that write nothing": (f"{NESTED}{ENDS}", OVER),
    "loop that lets nothing through": (
        f"{HUNDRED_THOUSAND}{{% for b in range(100000) if b < 0 %}}{ENDS}",
        OVER,
    ),
    "text times a billion": ("{{ 'a' * 1000000000 }}", LONG),
    "list times a billion": ("{{ ([1] * 1000000000)|length }}", OVER),
    "power of powers": ("{{ 9 ** 9 ** 9 ** 9 ** 9 }}", "over 4096 bits"),
    "format of a billion": ("{{ '%1000000000d'|format(1) }}", WIDE),
    "format of a billion, by operator": ("{{ '%1000000000d' % 1 }}", WIDE),
    "format whose width is a value": ("{{ '%*d' % (1000000000, 1) }}", "width from a value"),
    "format method of a billion": ("{{ '{:>1000000000}'.format(1) }}", WIDE),
    "format method whose width is a value": ("{{ '{:{}}'.format(1, 1000000000) }}", WIDE),
    "centre of a billion": ("{{ 'a'|center(1000000000) }}", WIDE),
    "padding of a billion": ("{{ 'a'.ljust(1000000000) }}", WIDE),
    "tabs of a billion": ("{{ ('\\t' * 1000).expandtabs(1000000000) }}", WIDE),
    "indent of ten billion": ("{{ ('\\n' * 100000)|indent('x' * 100000) }}", LONG),
    "replacement that multiplies": ("{{ ('a' * 100000)|replace('a', 'b' * 100000) }}", LONG),
    "join that multiplies": ("{{ range(100000)|join('b' * 100000) }}", LONG),
    "batch of a billion": ("{{ [1]|batch(1000000000, 'x')|list }}", WIDE),
    "precision of a billion": ("{{ 1.5|round(1000000000, 'floor') }}", WIDE),
    "text that doubles": (grown("'a'", "n.x ~ n.x"), f"joins strings|{LONG}"),
    "block that doubles": (
        grown("'a'", "y").replace(
            "{% set n.x", "{% set y %}{{ n.x }}{{ n.x }}{% endset %}{% set n.x"
        ),
        LONG,
    ),
    "list that doubles": (grown("[1]", "[n.x, n.x]", "{{ n.x }}"), OVER),
    "tuple as a key that doubles": (grown("(1,)", "(n.x, n.x)", "{{ {}[n.x] }}"), OVER),
    "number that squares": (grown("9", "n.x * n.x"), "over 4096 bits"),
    "macro that calls itself twice": (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
        "{{ f(64) }}",
        OVER,
    ),
    "macro that calls itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "without end"),
    "block that calls itself": ("{% block a %}{{ self.a() }}{% endblock %}", "without end"),
    "slow search": ("{{ ('a' * 500000).rfind('b' + 'a' * 250000) }}", OVER),
    "slow encoding": ("{{ ('é' * 500000).encode('punycode')|length }}", "encodes as"),
    "search in a loop": (
        f"{{% set x = 'a' * 500000 %}}{NESTED}{{{{ 'ab' in x }}}}{ENDS}",
        OVER,
    ),
    "number of 100,000 digits": (f"{{{{ {'1' * 10**5} }}}}", "number that is too long"),
    "nested lists": (f"{{{{ {'[' * 2000}{']' * 2000} }}}}", "nested too deep"),
    "nested loops": (
        "".join(f"{{% for a{i} in 'x' %}}" for i in range(30)) + "{% endfor %}" * 30,
        "nested too deep",
    ),
    "20,000 operators": ("{{ " + "-" * 20_000 + "1 }}", "over 10,000 tokens"),
    "more than a million letters": ("x" * 1_500_000, "characters, more than"),
}
LATER = {
    "loops of ten billion, for long questions": (
        f"{{% if question|length > 100 %}}{NESTED}{ENDS}{{% endif %}}",
        OVER,
    ),
    "text times a billion, for long questions": (
        "{% if question|length > 100 %}{{ question * 1000000000 }}{% endif %}",
        LONG,
    ),
    "Python's inside, for long questions": (
        "{% if question|length > 100 %}{{ ''.__class__.__mro__ }}{% endif %}",
        "unsafe",
    ),
}


def in_graph(text: str) -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        data: dict[str, Any] = yaml.safe_load(path.read_text())
        data["agents"][0]["prompt"] = PROMPT + text
        path.write_text(yaml.safe_dump(data, allow_unicode=True))

    return spoil


def in_team(text: str) -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        (path / "prompts" / "planner.jinja").write_text(PROMPT + text)

    return spoil


def in_pack(text: str) -> Callable[[Path], object]:
    def spoil(path: Path) -> None:
        path.write_text(yaml.safe_dump({"planner": {"prompt": PROMPT + text}}))

    return spoil


EVERYWHERE = ("another file", "loops of ten billion", "text times a billion")
CASES = (
    *(
        Case(name, "graph file", in_graph(text), told)
        for name, (text, told) in (ESCAPES | BOMBS).items()
    ),
    *(
        Case(name, "team", in_team((ESCAPES | BOMBS)[name][0]), (ESCAPES | BOMBS)[name][1])
        for name in EVERYWHERE
    ),
    *(
        Case(
            name,
            "prompt pack of a release",
            in_pack((ESCAPES | BOMBS)[name][0]),
            (ESCAPES | BOMBS)[name][1],
        )
        for name in EVERYWHERE
    ),
    *(
        Case(name, "run of a graph file", in_graph(text), told)
        for name, (text, told) in LATER.items()
    ),
)
