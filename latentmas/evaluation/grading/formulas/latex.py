r"""Bring mathematical texts into one form: `\dfrac12`, `$\frac{1}{2}$` and `1/2` cm."""

from __future__ import annotations

import re

__all__ = ["FUNCTIONS", "compact", "is_words", "tidied"]

FUNCTIONS = ("arcsin", "arccos", "arctan", "sin", "cos", "tan", "cot", "sec", "csc", "log", "ln")
"""Functions whose names may stand without a backslash."""
_SYMBOLS = {
    **dict.fromkeys("−–‒﹣－", "-"),
    "×": r"\times ",
    "·": r"\cdot ",
    "÷": "/",
    "∕": "/",
    "π": r"\pi ",
    "∞": r"\infty ",
    "≤": r"\le ",
    "≥": r"\ge ",
    "≠": r"\ne ",
    "∪": r"\cup ",
    "∩": r"\cap ",
    "∈": r"\in ",
    "±": r"\pm ",
    "°": r"^\circ",
    "²": "^2",
    "³": "^3",
    "√": r"\sqrt ",
    "％": "%",
    "½": r"\frac{1}{2}",
    "¼": r"\frac{1}{4}",
    "¾": r"\frac{3}{4}",
    "，": ",",
    "。": ".",
    "\u00a0": " ",
    "\u202f": " ",
    "\u2009": " ",
    "\u200b": "",
}
_TABLE = str.maketrans(_SYMBOLS)
_UNICODE_ROOT = re.compile(r"√\s*(\d+|[a-zA-Z])")
_CURRENCY = "€£¥₹"
_ENCLOSING = (
    *(("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"), ("`", "`")),
    *(('"', '"'), ("“", "”"), ("__", "__")),
)
_TEXT = r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|mbox|hbox|mathrm|mathbf|mathit|operatorname\*?)"
_WHOLE_TEXT = re.compile(rf"{_TEXT}\s*\{{([^{{}}]*)\}}")
_TRAILING_TEXT = re.compile(
    rf"(?<=[\w)}}\]%°])\s*{_TEXT}\s*\{{([^{{}}]*)\}}(?:\s*\^\s*\{{?\d\}}?)?$"
)
_JOINING_TEXT = re.compile(rf"{_TEXT}\s*\{{\s*(?:and|or)\s*\}}")
_BASE_AS_TEXT = re.compile(rf"_\{{\s*{_TEXT}\s*\{{(\w+)\}}\s*\}}")
_STYLES = re.compile(
    r"\\(?:left|right|displaystyle|textstyle|scriptstyle|limits|bigg?[lr]?|Bigg?[lr]?)(?![a-zA-Z])"
)
_SPACES = re.compile(r"(?<!\\)\\(?:[;: ]|q?quad(?![a-zA-Z]))|~")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![a-zA-Z]))|\\degrees?(?![a-zA-Z])")
_THOUSANDS = re.compile(r"(?<![\d.])\d{1,3}(?:,\d{3})+(?!\d)")
_SPACED_THOUSANDS = re.compile(r"[+-]?\d{1,3}(?: \d{3})+(?:\.\d+)?")
_NUMBER_AND_UNIT = re.compile(
    r"([+-]?(?:\d[\d,]*\.?\d*|\.\d+)(?:/\d+)?|[+-]?\\frac\{\d+\}\{\d+\})\s*"
    r"((?:[A-Za-zμ²³]{2,}+|(?<=\s)[a-zA-Z](?=[/ ]))(?:[/ .^]{0,2}[A-Za-z0-9²³]++)*+)\.?"
)
_NO_UNIT = {
    *FUNCTIONS,
    *("pi", "sqrt", "or", "and", "mod", "choose", "over", "to", "by", "th", "st", "nd", "rd"),
    *("thousand", "million", "billion", "trillion", "hundred", "dozen", "percent", "half"),
    *("less", "more", "minus", "plus", "times", "divided", "squared", "cubed", "factorial"),
    *("infinity", "exp", "theta", "alpha", "beta", "in", "is", "if", "for", "where"),
}
"""Words that are not units when they follow a number."""
_PLAIN_NAME = re.compile(rf"(?<![\\A-Za-z])({'|'.join(FUNCTIONS)}|sqrt|pi|infinity)(?![a-zA-Z])")
_ROOT = re.compile(r"\\sqrt\s*\(([^()]*)\)")
_BARE_ARGUMENT = re.compile(r"\s*(\\[a-zA-Z]+|[0-9A-Za-z])")
_WORDS = re.compile(r"[A-Za-zÀ-ÿ][A-Za-zÀ-ÿ'’ .-]*")
_LETTER_IN_BRACKETS = re.compile(r"\(\s*([A-Z])\s*\)")


def tidied(text: str) -> str:
    """The text without wrappers, units and other things that do not change its value.

    Spaces inside are kept, since `1 4/5` and `14/5` differ.
    """
    text = _bare(_UNICODE_ROOT.sub(r"\\sqrt{\1}", text).translate(_TABLE))
    text = _SPACES.sub(" ", _STYLES.sub("", text).replace("\\$", "").replace("\\%", "%"))
    text = re.sub(r",\\!\s*", ",", text.replace("{,}", ",")).replace("\\!", "")
    text = re.sub(r"(?<=\d)\\,\s*(?=\d{3})", "", text).replace("\\,", " ")
    text = _BASE_AS_TEXT.sub(r"_{\1}", text)
    text = _DEGREES.sub("", re.sub(r"\\[dtc]frac(?![a-zA-Z])", r"\\frac", text))
    text = re.sub(r"\\(leq|geq|neq)(?![a-zA-Z])", lambda match: "\\" + match[1][:2], text)
    text = _JOINING_TEXT.sub(",", text.replace("$", "")).strip()
    text = _bare(_without_unit(_braced(text)))
    text = re.sub(r"\s*(?:percent|per cent)$", "%", text, flags=re.IGNORECASE)
    return _plain_names(_without_thousands(text.strip(_CURRENCY)))


def compact(text: str) -> str:
    """A tidied text for comparison: without spaces, save between digits, and needless braces."""
    text = re.sub(r"(?<!\d)\s+|\s+(?!\d)", "", text)
    return re.sub(r"([\^_])\{(\w)\}", r"\1\2", text).replace("\\cdot", "*").replace("\\times", "*")


def is_words(text: str) -> bool:
    """Whether a tidied text is words, not mathematics; `xy` and `abc` may be products."""
    return bool(_WORDS.fullmatch(text)) and len(max(re.split(r"[ .-]", text), key=len)) > 3


def _bare(text: str) -> str:
    r"""The text without what encloses all of it, and without final punctuation."""
    before = None
    while text != before:
        before = text
        text = text.strip().rstrip(".,;:!").rstrip("\\").strip()
        for opening, closing in _ENCLOSING:
            inside = text[len(opening) : -len(closing)]
            enclosed = len(text) > len(opening) + len(closing)
            if enclosed and text.startswith(opening) and text.endswith(closing):
                text = text if opening in inside else inside
        if text.startswith("{") and _group_end(text, 0) == len(text):
            text = text[1:-1]
        whole = _WHOLE_TEXT.fullmatch(text)
        text = whole[1] if whole else text
        letter = _LETTER_IN_BRACKETS.fullmatch(text)
        text = letter[1] if letter else text
    return text


def _without_unit(text: str) -> str:
    """The text without a unit after the value."""
    text = _TRAILING_TEXT.sub(lambda match: _percent(match[1], match[0]), text)
    text = re.sub(r"\s+degrees?$", "", text, flags=re.IGNORECASE)
    match = _NUMBER_AND_UNIT.fullmatch(text)
    if match is None or _NO_UNIT & set(re.split(r"[^a-z]+", match[2].lower())):
        return text
    return match[1]


def _percent(unit: str, whole: str) -> str:
    words = set(unit.lower().split())
    if words & {"percent", "%"}:
        return "%"
    return whole if words & _NO_UNIT else ""


def _without_thousands(text: str) -> str:
    """The text without separators of thousands; `(1,234)` is a pair, and `1, 234` a list."""
    if _SPACED_THOUSANDS.fullmatch(text):
        return text.replace(" ", "")
    if any(bracket in text for bracket in ("(", "[", "\\{")):
        return text
    return _THOUSANDS.sub(lambda match: match[0].replace(",", ""), text)


def _plain_names(text: str) -> str:
    r"""With a backslash before functions that were written without one, and `sqrt(x)` in braces."""
    text = _PLAIN_NAME.sub(lambda m: f"\\{'infty' if m[1] == 'infinity' else m[1]} ", text)
    return _ROOT.sub(r"\\sqrt{\1}", text).replace("**", "^")


def _braced(text: str) -> str:
    r"""With braces around the arguments of fractions and roots: `\frac43` is `\frac{4}{3}`."""
    pieces, end = list[str](), 0
    for match in re.finditer(r"\\(frac|sqrt)(?![a-zA-Z])", text):
        if match.start() < end:  # inside an argument, which keeps its form
            continue
        pieces.append(text[end : match.end()])
        end = match.end()
        for _ in range(2 if match[1] == "frac" else 1):
            bare = _BARE_ARGUMENT.match(text, end)
            if bare is not None:
                pieces.append(f"{{{bare[1]}}}")
                end = bare.end()
                continue
            stop = _group_end(text, end)
            pieces.append(text[end:stop].strip() if stop > end else "")
            end = max(end, stop)
    return "".join([*pieces, text[end:]])


def _group_end(text: str, start: int) -> int:
    """Where the group in braces that begins here ends; `start` if there is none."""
    begin = next((at for at in range(start, len(text)) if not text[at].isspace()), len(text))
    depth = 0
    for at in range(begin, len(text)):
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        if depth == 0:
            return at + 1 if text[at] == "}" else start
    return start
