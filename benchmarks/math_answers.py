r"""Answers written in other ways that are equal, and answers that look alike and are not.

Each rule takes an answer as MATH writes it and returns texts; an empty list where it does not
apply. What the rules return is equal, or not, by construction.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from fractions import Fraction

__all__ = ["ALIKE", "EQUAL", "alike", "rewrites"]

Rule = Callable[[str], list[str]]
FRACTION = re.compile(r"\\d?frac\{(\d+)\}\{(\d+)\}")
INTEGER = re.compile(r"-?\d+")
TERM = r"[^-+=,()\[\]{}\\]*(?:\\(?:frac\{[^{}]*\}\{[^{}]*\}|sqrt\{[^{}]*\}|pi)[^-+=,()\[\]{}\\]*)*"
SUM = re.compile(rf"({TERM}) ?\+ ?({TERM})")
LIST = re.compile(r"[^,()\[\]\\{}]+(?:, ?[^,()\[\]\\{}]+)+")
PAIR = re.compile(r"\(([^,()]+), ?([^,()]+)\)")
UNIT = re.compile(r"\s*\\(?:text|mbox)\{ ?[a-z]+\}(?:\^2)?$")
GROUPED = re.compile(r"(?:\\\$)?\d{1,3}(?:,(?:\\!)?\s*\d{3})+")
THOUSAND = re.compile(r"\d{4,}")


def _fraction_kinds(text: str) -> list[str]:
    if "frac" not in text:
        return []
    plain = re.sub(r"\\[dt]?frac", r"\\frac", text)
    return [plain.replace("\\frac", other) for other in ("\\dfrac", "\\tfrac", "\\frac")]


def _slash(text: str) -> list[str]:
    match = re.fullmatch(rf"(-?){FRACTION.pattern}", text)
    return (
        [f"{match[1]}{match[2]}/{match[3]}", f"{match[1]}({match[2]}/{match[3]})"] if match else []
    )


def _sign_inside(text: str) -> list[str]:
    match = re.fullmatch(rf"-{FRACTION.pattern}", text)
    if not match:
        return []
    return [f"\\frac{{-{match[1]}}}{{{match[2]}}}", f"\\frac{{{match[1]}}}{{-{match[2]}}}"]


def _decimal(text: str) -> list[str]:
    match = re.fullmatch(rf"(-?){FRACTION.pattern}", text)
    if not match:
        return []
    value = Fraction(int(match[2]), int(match[3]))
    rest = value.denominator
    for prime in (2, 5):
        while rest % prime == 0:
            rest //= prime
    return (
        [match[1] + f"{float(value):.12f}".rstrip("0")]
        if rest == 1 and value.denominator < 10**6
        else []
    )


def _to_fraction(text: str) -> list[str]:
    if not re.fullmatch(r"-?\d*\.\d+", text):
        return []
    value = Fraction(text)
    return [
        f"\\frac{{{value.numerator}}}{{{value.denominator}}}",
        f"{text}0",
        f"{value.numerator}/{value.denominator}",
    ]


def _unreduced(text: str) -> list[str]:
    match = re.fullmatch(rf"(-?){FRACTION.pattern}", text)
    return [f"{match[1]}\\frac{{{2 * int(match[2])}}}{{{2 * int(match[3])}}}"] if match else []


def _integer_forms(text: str) -> list[str]:
    if not INTEGER.fullmatch(text):
        return []
    return [f"{text}.0", f"{text}.", f"\\frac{{{2 * int(text)}}}{{2}}"]


def _spaced(text: str) -> list[str]:
    if "\\text" in text or "\\mbox" in text or GROUPED.fullmatch(text):
        return []
    wide = re.sub(r"(?<=[\w})])\s*([-+=,])\s*(?=[\w\\({])", r" \1 ", text)
    narrow = re.sub(r"\s*([-+=,])\s*", r"\1", text)
    return [wide, narrow, text.replace(",", ", \\,") if "," in text and "\\!" not in text else text]


def _left_right(text: str) -> list[str]:
    bare = re.sub(r"\\(left|right)\s*", "", text)
    sized = re.sub(r"(?<!\\)([(\[])", r"\\left\1", bare)
    sized = re.sub(r"(?<!\\)([)\]])", r"\\right\1", sized)
    return [bare, sized] if sized != bare else []


def _reordered_sum(text: str) -> list[str]:
    match = SUM.fullmatch(text)
    if not match or not match[1].strip() or not match[2].strip():
        return []
    return [f"{match[2].strip()} + {match[1].strip()}"]


def _reversed_polynomial(text: str) -> list[str]:
    if not re.fullmatch(r"[-+ \d]*[a-zA-Z][-+ \da-zA-Z^]*", text) or "^" not in text:
        return []
    terms = re.findall(r"[-+]?[^-+]+", text.replace(" ", ""))
    signed = [term if term[0] in "+-" else f"+{term}" for term in terms]
    return ["".join(reversed(signed)).removeprefix("+")]


def _reordered_list(text: str) -> list[str]:
    if not LIST.fullmatch(text) or (THOUSAND.fullmatch(text.replace(",", "")) and ", " not in text):
        return []
    parts = [part.strip() for part in text.split(",")]
    joined = ", ".join(parts)
    return [
        ", ".join(reversed(parts)),
        f"\\{{{joined}\\}}",
        f"{', '.join(parts[:-1])} \\text{{ and }} {parts[-1]}",
    ]


def _words(text: str) -> list[str]:
    match = re.fullmatch(r"\\text\{([A-Za-z]+)\}", text)
    if not match:
        return []
    word = match[1]
    return [word, word.capitalize(), word.lower(), f"\\textbf{{{word}}}", f"\\mathrm{{{word}}}"]


def _letters(text: str) -> list[str]:
    match = re.fullmatch(r"\\text\{\(([A-E])\)\}", text)
    return (
        [match[1], f"({match[1]})", f"\\text{{{match[1]}}}", f"\\textbf{{({match[1]})}}"]
        if match
        else []
    )


def _degrees(text: str) -> list[str]:
    match = re.fullmatch(r"(\d+)\^\\circ", text)
    if not match:
        return []
    n = match[1]
    return [f"{n}^{{\\circ}}", f"{n}°", f"{n} \\text{{ degrees}}", f"{n}", f"{n} degrees"]


def _thousands(text: str) -> list[str]:
    plain = re.sub(r",(\\!)?\s*", "", text).replace("\\$", "")
    if not THOUSAND.fullmatch(plain):
        return []
    n = int(plain)
    return [
        f"{n:,}",
        f"{n}",
        f"{n:,}".replace(",", "{,}"),
        f"{n:,}".replace(",", ",\\!"),
        f"\\${n:,}",
    ]


def _units(text: str) -> list[str]:
    bare = UNIT.sub("", text).replace("\\$", "")
    if bare in (text, ""):
        return []
    return [bare, f"{bare}\\ \\text{{units}}"]


def _subscripts(text: str) -> list[str]:
    match = re.fullmatch(r"(\d+)_\{?(\d)\}?", text)
    return (
        [
            f"{match[1]}_{{{match[2]}}}",
            f"{match[1]}_{match[2]}",
            f"{match[1]}_{{\\text{{{match[2]}}}}}",
        ]
        if match
        else []
    )


def _unicode(text: str) -> list[str]:
    changed = (
        text.replace("\\pi", "π").replace("\\infty", "∞").replace("\\cup", "∪").replace("-", "−")
    )
    changed = re.sub(r"\\sqrt\{(\d+)\}", r"√\1", changed)
    return [changed] if changed != text and "begin" not in text else []


def _plain_roots(text: str) -> list[str]:
    match = re.fullmatch(r"(\d*) ?\\sqrt\{(\d+)\}", text)
    if not match:
        return []
    factor = f"{match[1]}*" if match[1] else ""
    return [
        f"{factor}sqrt({match[2]})",
        f"\\sqrt{{{match[2]}}}" + (f" \\cdot {match[1]}" if match[1] else ""),
    ]


def _plain_pi(text: str) -> list[str]:
    match = re.fullmatch(r"(\d+) ?\\pi", text)
    return [f"{match[1]}pi", f"{match[1]}*pi", f"\\pi \\cdot {match[1]}"] if match else []


def _assigned(text: str) -> list[str]:
    return [f"x = {text}"] if re.fullmatch(rf"-?(?:\d+|\d*\.\d+|{FRACTION.pattern})", text) else []


def _unassigned(text: str) -> list[str]:
    match = re.fullmatch(r"([a-z]) ?(?:=|\\in) ?(.+)", text)
    return [match[2]] if match else []


def _split_sign(text: str) -> list[str]:
    match = re.fullmatch(r"([^\\{}]*) ?\\pm ?(.+)", text)
    if not match:
        return []
    return [
        f"{match[1]} + {match[2]}, {match[1]} - {match[2]}",
        f"{match[1]} - {match[2]}, {match[1]} + {match[2]}",
    ]


def _wrapped(text: str) -> list[str]:
    return [f"${text}$", f"\\({text}\\)", f"{{{text}}}", f"\\displaystyle {text}", f" {text}. "]


EQUAL: dict[str, Rule] = {
    "wrapped": _wrapped,
    "kinds of fractions": _fraction_kinds,
    "a/b": _slash,
    "sign inside a fraction": _sign_inside,
    "fraction as decimal": _decimal,
    "decimal as fraction": _to_fraction,
    "unreduced fraction": _unreduced,
    "forms of an integer": _integer_forms,
    "spacing": _spaced,
    "left and right": _left_right,
    "order of a sum": _reordered_sum,
    "order of a polynomial": _reversed_polynomial,
    "order of a list": _reordered_list,
    "words": _words,
    "letters of options": _letters,
    "degrees": _degrees,
    "thousands": _thousands,
    "units": _units,
    "subscripts": _subscripts,
    "Unicode signs": _unicode,
    "plain roots": _plain_roots,
    "plain pi": _plain_pi,
    "x =": _assigned,
    "without x =": _unassigned,
    "plus or minus": _split_sign,
}
"""Rules that keep an answer's value."""


def _next_integer(text: str) -> list[str]:
    """The first integer of the text, one more."""
    return [INTEGER.sub(lambda match: str(int(match[0]) + 1), text, count=1)]


def _last_integer(text: str) -> list[str]:
    *_, last = [None, *re.finditer(r"\d+", text)]
    if last is None or text[: last.start()].endswith(("begin{", ".")):
        return []
    return [f"{text[: last.start()]}{int(last[0]) + 1}{text[last.end() :]}"]


def _negated(text: str) -> list[str]:
    plain = re.fullmatch(r"-?(?:\d+|\\frac\{\d+\}\{\d+\}|\d*\.\d+|\d*\\sqrt\{\d+\})", text)
    if plain is None or text in ("0", "-0"):
        return []
    return [text.removeprefix("-") if text.startswith("-") else f"-{text}"]


def _inverted(text: str) -> list[str]:
    match = re.fullmatch(FRACTION.pattern, text)
    return [f"\\frac{{{match[2]}}}{{{match[1]}}}", match[1]] if match else []


def _swapped(text: str) -> list[str]:
    match = PAIR.fullmatch(text)
    return [f"({match[2]},{match[1]})"] if match and match[1].strip() != match[2].strip() else []


def _closed(text: str) -> list[str]:
    interval = re.search(r"(\(|\[).*\\infty|\\left\[|\(.*\]", text)
    return [text.replace("(", "[", 1)] if interval and "(" in text.replace("(-\\infty", "") else []


def _without_root(text: str) -> list[str]:
    match = re.fullmatch(r"(.*)\\sqrt\{(\d+)\}", text)
    return [f"{match[1]}{match[2]}"] if match and int(match[2]) > 1 else []


def _without_last_term(text: str) -> list[str]:
    match = re.fullmatch(r"([^()\[\],=]+)[-+] ?\w+", text)
    return [match[1].strip()] if match and match[1].strip() else []


def _tenfold(text: str) -> list[str]:
    return [f"{text}0"] if INTEGER.fullmatch(text) and text not in ("0", "-0") else []


def _rounded(text: str) -> list[str]:
    match = re.fullmatch(r"\\frac\{(\d+)\}\{(\d+)\}", text)
    if not match or float(f"{int(match[1]) / int(match[2]):.2f}") == int(match[1]) / int(match[2]):
        return []
    return [f"{int(match[1]) / int(match[2]):.2f}"]


ALIKE: dict[str, Rule] = {
    "first integer + 1": _next_integer,
    "last integer + 1": _last_integer,
    "sign": _negated,
    "inverse": _inverted,
    "coordinates swapped": _swapped,
    "bracket": _closed,
    "root left out": _without_root,
    "term left out": _without_last_term,
    "zero added": _tenfold,
    "rounded": _rounded,
}
"""Rules that change an answer's value."""


def rewrites(answer: str) -> Iterator[tuple[str, str]]:
    """Rule → text equal to the answer and written differently, each once."""
    return _applied(EQUAL, answer)


def alike(answer: str) -> Iterator[tuple[str, str]]:
    """Rule → text that looks like the answer and is not equal to it."""
    return _applied(ALIKE, answer)


def _applied(rules: dict[str, Rule], answer: str) -> Iterator[tuple[str, str]]:
    seen = {answer}
    for name, rule in rules.items():
        for text in rule(answer):
            if text not in seen:
                seen.add(text)
                yield name, text
