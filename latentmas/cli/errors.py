"""The command that explains codes: errors."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

import latentmas
from latentmas.cli.support.console import emit, emit_json
from latentmas.cli.support.options import Json, unknown
from latentmas.errors import CODES

__all__ = ["errors"]


def errors(
    codes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CODE…",
            help="Error codes to explain, such as LM103. Default: list all codes.",
            autocompletion=lambda: list(CODES),
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Explain error codes: what each means, an example, and what to do."""
    if not codes:
        if json:
            emit_json(CODES)
            return
        for name, meaning in CODES.items():
            emit(f"{name}  {meaning}")
        return
    for code in codes:
        if code.upper() not in CODES:
            raise unknown("code", code, CODES, "`latentmas errors` lists all codes")
    names = dict.fromkeys(code.upper() for code in codes)
    told = [{"code": name, "meaning": CODES[name], "text": _section(name)} for name in names]
    if json:
        emit_json(told[0] if len(told) == 1 else {"codes": told})
    else:
        emit("\n\n".join(section["text"] for section in told))


def _section(code: str) -> str:
    """The code's section of docs/errors.md."""
    page = _page().read_text(encoding="utf-8")
    found = re.search(rf"^## {code}\n.*?(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    return found[0].strip() if found else f"{code}: {CODES[code]}"


def _page() -> Path:
    """The page on errors: in a wheel it lies in the package, in a clone under docs/."""
    package = Path(latentmas.__path__[0])
    inside = package / "errors.md"
    return inside if inside.exists() else package.parent / "docs" / "errors.md"
