"""Write docs/llms.txt, the docs as language models want them: `python tests/golden/llms.py`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "llms.txt"
HEAD = """\
# latentmas

> A Python SDK for latent multi-agent systems: teams of frozen language models that hand each
> other hidden states instead of text, loop for several rounds, and decode text once, at the end.
> Only small links between the models are trained. The method is RecursiveMAS (arXiv 2604.25917);
> LatentMAS (arXiv 2511.20639) is another method.

Declare agents and edges with `lm.Graph`, or take a graph of `lm.templates`; `graph.compile()`
checks all and makes links; `plan.load(device)` loads backbones; `system.run(rows)` answers;
`lm.train(system, rows, output_dir="out")` trains links with the loops that suit them. A slot of a
prompt, `{{ name }}`, is filled by one edge, or by several with combine=; feedback slots are
guarded with `{% if name %}`.
`latentmas errors CODE` explains a message. In a clone, a page `x/` is the file `docs/x.md`.
"""


def render() -> str:
    """The page: what this is, then each page of the site with its first sentence."""
    config = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    parts = [HEAD]
    loose: list[str] = []
    for entry in yaml.safe_load(config)["nav"]:
        ((title, inside),) = entry.items()
        if isinstance(inside, str):
            loose.append(_line(title, inside))
        else:
            parts.append(
                f"## {title}\n\n" + "\n".join(_line(*pair) for pair in _pairs(inside)) + "\n"
            )
    return "\n".join([parts[0], "## Pages\n\n" + "\n".join(loose) + "\n", *parts[1:]])


def _pairs(entries: list[Any]) -> Iterator[tuple[str, str]]:
    for entry in entries:
        if isinstance(entry, str):
            title = (ROOT / "docs" / entry).read_text(encoding="utf-8").splitlines()[0]
            yield title.removeprefix("# "), entry
            continue
        ((title, inside),) = entry.items()
        if isinstance(inside, str):
            yield title, inside
        else:
            yield from _pairs(inside)


def _line(title: str, path: str) -> str:
    text = (ROOT / "docs" / path).read_text(encoding="utf-8")
    plain = re.sub(
        r"^(```.*?^```|!!!.*?$|    .*?$|--8<--.*?$|#.*?$|[|].*?$)", "", text, flags=_FLAGS
    )
    first = next((part for part in plain.split("\n\n") if part.strip()), "")
    words = " ".join(re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", first).split())
    sentence = re.split(r"(?<=[.:]) ", words)[0].rstrip(":")
    place = path.removesuffix("index.md").removesuffix(".md")
    return f"- [{title}]({place.rstrip('/') or '.'}/)" + (f": {sentence}" if sentence else "")


_FLAGS = re.MULTILINE | re.DOTALL


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
