"""Pages of HTML that stand alone: one file, no network, no script, light and dark, any width."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from latentmas.viz.svg import mark, tag

__all__ = ["Cell", "figure", "heading", "mark", "page", "table", "tag"]

Cell = str | tuple[str, str]
"""Text of a cell; or the text and the style of the cell."""

_STYLE = """\
:root{color-scheme:light dark;--ink:#1b1f24;--mute:#57606a;--paper:#ffffff;--line:#d0d7de;
--soft:#f3f4f6;--c0:#0072b2;--c1:#d55e00;--c2:#009e73;--c3:#aa4499;--c4:#b07c00;--c5:#3a8fbf;
--heat:0,114,178}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--mute:#9da7b3;--paper:#0d1117;
--line:#30363d;--soft:#161b22;--c0:#56b4e9;--c1:#f0883e;--c2:#2fc59a;--c3:#e08cc8;--c4:#e6b422;
--c5:#8ecae6;--heat:86,180,233}}
*{box-sizing:border-box}
body{margin:0 auto;padding:1rem;max-width:76rem;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,"Segoe UI","DejaVu Sans",sans-serif;overflow-wrap:anywhere}
h1{font-size:1.5rem;margin:.2rem 0 .4rem}h2{font-size:1.2rem;margin:2rem 0 .5rem}
h3{font-size:1rem;margin:1.2rem 0 .4rem}
p{margin:.4rem 0;max-width:48rem}.mute{color:var(--mute)}
nav{display:flex;flex-wrap:wrap;gap:.2rem 1rem;margin:.6rem 0}a{color:var(--c0)}
.scroll{overflow-x:auto;width:fit-content;max-width:100%;border:1px solid var(--line);
border-radius:6px;margin:.5rem 0}
.scroll>svg{display:block;max-width:none}
table{border-collapse:collapse;font-size:.87rem}
caption{text-align:left;padding:.4rem .6rem;color:var(--mute);caption-side:top}
th,td{text-align:left;padding:.25rem .6rem;border-top:1px solid var(--line);vertical-align:top;
overflow-wrap:normal}
thead th{border-top:0;background:var(--soft);white-space:nowrap}
th{font-weight:600}
td{white-space:pre-line}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tr.total>*{border-top:2px solid var(--mute);font-weight:600}
details{margin:.4rem 0}summary{cursor:pointer;padding:.2rem 0}
summary:focus-visible,a:focus-visible,.scroll:focus-visible{outline:3px solid var(--c1)}
code,.token{font-family:ui-monospace,SFMono-Regular,Menlo,"DejaVu Sans Mono",monospace;
font-size:.92em}
pre{white-space:pre-wrap;background:var(--soft);border-radius:6px;padding:.6rem;margin:.4rem 0}
@media print{details>*{display:block}}"""


def page(title: str, body: Iterable[str], *, style: str = "") -> str:
    """A whole document.

    Args:
        title: of the page.
        body: HTML.
        style: rules beside those of every page.
    """
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    head = [
        '<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        '<meta name="color-scheme" content="light dark">',
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        f"<title>{mark(title)}</title>",
        f"<style>\n{_STYLE}\n{style}</style>",
    ]
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>',
            *head,
            "</head>\n<body>\n<main>",
            *body,
            "</main>\n</body>\n</html>\n",
        ]
    )


def heading(level: int, text: str, id: str = "") -> str:
    """A heading that links may lead to."""
    return tag(f"h{level}", mark(text), **({"id": id} if id else {}))


def figure(name: str, inner: str) -> str:
    """A wide thing that scrolls by itself, with a name for screen readers."""
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=name)


def table(
    caption: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    *,
    numbers: Iterable[int] = (),
    total: bool = False,
) -> str:
    """A table whose first column names the rows.

    Args:
        caption: what it shows.
        columns: heads.
        rows: text, or (text, style), of each cell.
        numbers: columns of numbers, from 0.
        total: whether the last row is the sum of the others.
    """
    right = frozenset(numbers)
    heads = "".join(
        tag("th", mark(text), scope="col", **({"class_": "n"} if i in right else {}))
        for i, text in enumerate(columns)
    )
    lines = [
        tag("tr", _cells(row, right), **({"class_": "total"} if total and last else {}))
        for row, last in zip(rows, [*[False] * (len(rows) - 1), True], strict=False)
    ]
    parts = [
        tag("caption", mark(caption)),
        tag("thead", tag("tr", heads)),
        tag("tbody", "\n".join(lines)),
    ]
    return figure(caption, tag("table", "\n".join(parts)))


def _cells(row: Sequence[Cell], right: frozenset[int]) -> str:
    found = []
    for i, cell in enumerate(row):
        text, style = (cell, "") if isinstance(cell, str) else cell
        look = ' class="n"' if i in right else ""
        look += f' style="{escape(style)}"' if style else ""
        name, scope = ("td", "") if i else ("th", ' scope="row"')
        found.append(f"<{name}{scope}{look}>{mark(text, lines=True)}</{name}>")
    return "".join(found)
