"""The table of an evaluation: a row for each system, as text, Markdown, LaTeX or JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from latentmas.atomic import write_text_atomically
from latentmas.errors import LatentMASError
from latentmas.evaluation.scoring import Evaluation

__all__ = [
    "HEAD",
    "latex_table",
    "escape_latex",
    "markdown_table",
    "notes_of",
    "plain_table",
    "table_rows",
    "write_table",
]

HEAD = (
    "system",
    "score",
    "95 % interval",
    "team less system",
    "tokens",
    "latent",
    "prompt",
    "seconds",
)
_SHOWN = 10
"""Maximum number of failed rows to list."""


class TableRow(NamedTuple):
    """One system, as text."""

    system: str
    score: str
    interval: str
    difference: str
    """Score of the team minus that of the system, with its interval."""
    tokens: str
    latent_steps: str
    prompt_tokens: str
    seconds: str


def table_rows(evaluation: Evaluation) -> Iterator[TableRow]:
    """The team and the systems beside it."""
    yield _row("team", evaluation, "")
    for name, other in evaluation.others.items():
        paired = evaluation.differences[name]
        low, high = paired.interval
        yield _row(name, other, f"{100 * paired.mean:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})")


def _row(name: str, one: Evaluation, difference: str) -> TableRow:
    low, high = one.interval
    return TableRow(
        name,
        f"{100 * one.score:.1f}",
        f"{100 * low:.1f} to {100 * high:.1f}",
        difference,
        f"{one.new_tokens:,}",
        f"{one.latent_steps:,}",
        f"{one.prompt_tokens:,}",
        f"{one.seconds:.2f}",
    )


def notes_of(evaluation: Evaluation) -> list[str]:
    """What the table does not say: metrics of several answers, failed rows, answers cut off."""
    lines = []
    for name, one in {"team": evaluation, **evaluation.others}.items():
        if one.sampled:
            shares = ", ".join(f"{metric} {share:.1%}" for metric, share in one.sampled.items())
            lines.append(f"{name}: {shares}")
        if one.errors:
            numbers = ", ".join(map(str, sorted(one.errors)[:_SHOWN]))
            more = ", …" if len(one.errors) > _SHOWN else ""
            count = f"{len(one.errors)} of {one.rows} rows failed and count as wrong"
            lines.append(f"{name}: {count} (from 0: {numbers}{more})")
    systems = {"team": evaluation, **evaluation.others}
    counted = {
        "answers that ended at the limit of tokens": {
            name: one.finish_reasons.get("length", 0) for name, one in systems.items()
        },
        "texts in which the grader found no answer": {n: one.unread for n, one in systems.items()},
    }
    for what, counts in counted.items():
        if any(counts.values()):
            told = ", ".join(f"{name} {count}" for name, count in counts.items() if count)
            lines.append(f"{what}: {told}")
    return lines


def plain_table(evaluation: Evaluation) -> str:
    """The table for a terminal; scores and differences in per cent."""
    rows: list[tuple[str, ...]] = [HEAD, *table_rows(evaluation)]
    if not evaluation.others:
        rows = [row[:3] + row[4:] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([f"{evaluation.grader}, {evaluation.rows} rows", *lines])


def markdown_table(evaluation: Evaluation) -> str:
    """The table in Markdown."""
    lines = [f"| {' | '.join(HEAD)} |", "|---|" + "---:|" * (len(HEAD) - 1)]
    lines += [f"| {' | '.join(row)} |" for row in table_rows(evaluation)]
    note = f"Scores in per cent ({evaluation.grader}), {evaluation.rows} rows."
    return "\n".join([*lines, "", note, ""])


def latex_table(evaluation: Evaluation) -> str:
    r"""The table in LaTeX, for `\usepackage{booktabs}`."""
    rows = [" & ".join(map(escape_latex, row)) + r" \\" for row in table_rows(evaluation)]
    return "\n".join(
        [
            rf"% Scores in per cent ({escape_latex(evaluation.grader)}), {evaluation.rows} rows.",
            rf"\begin{{tabular}}{{l{'r' * (len(HEAD) - 1)}}}",
            r"\toprule",
            " & ".join(map(escape_latex, HEAD)) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            "",
        ]
    )


def escape_latex(text: str) -> str:
    """Text with the characters escaped that LaTeX reads as commands."""
    special = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
    return "".join(special.get(c, f"\\{c}" if c in "&%$#_{}" else c) for c in text)


def write_table(evaluation: Evaluation, path: str | Path) -> Path:
    """Write the table in the format of the file's suffix: .md, .tex, .json, .txt or .html.

    A `.html` file is the page of `Evaluation.page`.

    Raises:
        LatentMASError: the suffix is none of these.
    """
    path = Path(path)
    formats = {
        ".md": markdown_table,
        ".tex": latex_table,
        ".txt": lambda one: f"{one}\n",
        ".json": lambda one: json.dumps(one.to_dict(), indent=1, ensure_ascii=False) + "\n",
    }
    if path.suffix == ".html":
        return evaluation.page(path)
    if path.suffix not in formats:
        raise LatentMASError(
            f"cannot write the table to {str(path)!r}; its name must end in .md, .tex, .json, "
            ".txt or .html"
        )
    return write_text_atomically(path, formats[path.suffix](evaluation))
