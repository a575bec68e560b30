"""Make the drawings of the docs anew: `python tests/golden/redraw.py`."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import tempfile
from pathlib import Path

import latentmas as lm

DOCS = Path(__file__).parent.parent.parent / "docs"


def main() -> None:
    """Run the gallery's code, and keep what it draws."""
    lm.templates.sequential_light().compile().draw(DOCS / "team.svg")
    page = (DOCS / "gallery.md").read_text(encoding="utf-8")
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        os.chdir(folder)
        exec("".join(re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)), {})
        for drawn in Path(folder).glob("*.svg"):
            shutil.copy(drawn, DOCS / "pictures" / drawn.name)
        os.chdir(DOCS)


if __name__ == "__main__":
    main()
