"""What several benchmarks share: sentences, settings, and the form of multiple-choice questions."""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

__all__ = ["BOXED", "CHOICE", "SAMPLED", "SHORT", "choice_sample", "with_options"]

BOXED = r"Reason step by step, and put the final answer inside \boxed{}."
CHOICE = r"Choose one option, and put its letter inside \boxed{}, for example \boxed{A}."
SHORT = r"Put the answer, in a few words, inside \boxed{}."
SAMPLED = {"do_sample": True, "temperature": 0.6, "top_p": 0.95}
"""How the paper's code samples, on all benchmarks but those of code."""


def with_options(question: str, options: Sequence[str]) -> str:
    """A question followed by its options, one per line, each after its letter."""
    lines = [f"{letter}. {text}" for letter, text in zip(ascii_uppercase, options, strict=False)]
    return question.rstrip() + "\n\n" + "\n".join(lines)


def choice_sample(question: str, options: Sequence[str], right: int) -> dict[str, object]:
    """A sample of a multiple-choice benchmark.

    Args:
        question: The question, without its options.
        options: Texts of the options, without letters.
        right: Index of the correct option.
    """
    return {
        "question": with_options(question, options),
        "answer": ascii_uppercase[right],
        "answer_text": options[right],
        "options": list(options),
    }
