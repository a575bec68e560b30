"""Write docs/support.md: `python tests/golden/support.py [COLUMN …]`."""

from __future__ import annotations

import logging
import sys
import time

import torch
from transformers.utils import logging as of_transformers

from tests.support import (
    COLUMNS,
    FAMILIES,
    NOT_TRIED,
    PAGE,
    PLAIN_TYPES,
    YES,
    can_check,
    cell,
    committed,
)

HEAD = """\
# Support matrix

Each cell is a run: a tiny model of the family, with random weights, in a team of two agents with
two rounds and feedback, on a CPU. `make docs-update` runs all cells; the tests run a part of them
and compare it with this page. `yes` means that messages equal those of the `reference` executor, up
to the rounding of the type, and for training, that links change by gradients through the backbone.
GGUF files are unpacked once into full weights, and then behave as in `fp32` and `bf16`; which
architectures are read is transformers' choice. `adapter` is a LoRA of one agent. `tensor parallel`
alone is not a run: it says whether transformers has a plan for the family that two processes can
follow, judged by the configuration. Runs of two processes are tested for `qwen3` and `llama`.

"""
FOOT = """
Families that are not listed often work: loading [probes](how-to/own-backbone.md) each model, and
refuses one that would answer wrongly. [Backbones as you have them](how-to/backbones.md)
explains the columns.
"""


def main() -> None:
    """Run all cells, or those of the columns named; keep others, and those without a library."""
    wanted = sys.argv[1:] or list(COLUMNS)
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    of_transformers.disable_progress_bar()
    known = committed() if PAGE.exists() else {}
    found = {}
    for family in FAMILIES:
        begun = time.process_time()
        for column in COLUMNS:
            kept = known.get((family, column), NOT_TRIED)
            found[family, column] = kept
            if column in wanted and can_check(column):
                found[family, column] = cell(family, column)
        print(f"{family}: {time.process_time() - begun:.1f} s", file=sys.stderr)
    PAGE.write_text(render(found), encoding="utf-8")


def render(found: dict[tuple[str, str], str]) -> str:
    """The page, with the reasons as numbered notes."""
    reasons = list(dict.fromkeys(why for why in found.values() if why not in (YES, NOT_TRIED)))
    parts = [HEAD]
    texts = [family for family in FAMILIES if family not in PLAIN_TYPES]
    for title, families in (("Language models", texts), ("Image-text models", [*PLAIN_TYPES])):
        parts.append(f"## {title}\n\n")
        parts.append(f"| `model_type` | {' | '.join(COLUMNS)} |\n")
        parts.append("|---" * (len(COLUMNS) + 1) + "|\n")
        for family in families:
            values = (found[family, column] for column in COLUMNS)
            cells = (f"no ({reasons.index(v) + 1})" if v in reasons else v for v in values)
            parts.append(f"| `{family}` | {' | '.join(cells)} |\n")
        parts.append("\n")
    if reasons:
        parts.append("## Reasons\n\n")
        parts += [f"{number}. {reason}\n" for number, reason in enumerate(reasons, start=1)]
    return "".join(parts).rstrip() + "\n" + FOOT


if __name__ == "__main__":
    main()
