"""Find the program in a text that a model wrote."""

from __future__ import annotations

import ast
import re
import warnings
from dataclasses import dataclass

from latentmas.evaluation.grading.texts.thoughts import after_thoughts

__all__ = ["find_code", "runnable"]

_FENCE = re.compile(r"^[ \t]*(`{3,}|~{3,})[ \t]*([^\s`]*)[^\n`]*$")
_PYTHON = ("python", "py", "python3")
_NEXT_STATEMENT = re.compile(r"\n(?=[^\s)\]}#])")
_SAYS_NOTHING = (ast.Constant, ast.Name, ast.Attribute, ast.Tuple, ast.BinOp, ast.UnaryOp)


@dataclass(frozen=True)
class _Block:
    language: str
    code: str


def find_code(text: str, entry_point: str = "", prompt: str = "") -> str | None:
    """The program in a text, or None.

    It is the last block marked as Python, failing that the last unmarked block, failing that the
    whole text if that is a program. Where a function is asked for, blocks that define it come
    first. Reasoning between `<think>` and `</think>` is left out.

    Args:
        text: generated text.
        entry_point: name of the function that is asked for.
        prompt: head of the function; a text or block that continues it counts as well.
    """
    text = after_thoughts(text)
    blocks = _blocks(text)
    marked = [block.code for block in blocks if block.language in _PYTHON]
    bare = [block.code for block in blocks if not block.language]
    codes = [*reversed(marked), *reversed(bare)]
    if entry_point:
        for code in codes or [text]:
            if _defines(code, entry_point):
                return code
        for code in codes or [text] if prompt else ():
            whole = _completed(prompt, code, entry_point)
            if whole is not None:
                return whole
    if codes:
        return codes[0]
    return text if _is_program(text) else None


def runnable(prompt: str) -> str:
    """The head of a function as Python that runs: imports and helpers, and an empty function."""
    tries = (prompt, f"{prompt.rstrip()}\n    pass\n")
    return next((code for code in tries if _parse(code) is not None), "")


def _blocks(text: str) -> list[_Block]:
    """All fenced blocks; one that is never closed reaches to the end."""
    found, lines = [], list[str]()
    fence, language = "", ""
    for line in text.split("\n"):
        match = _FENCE.match(line.rstrip("\r"))
        if not fence and match:
            fence, language, lines = match[1], match[2].lower(), []
        elif fence and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            found.append(_Block(language, "\n".join(lines)))
            fence = ""
        else:
            lines.append(line)
    if fence:
        found.append(_Block(language, "\n".join(lines)))
    return [block for block in found if block.code.strip()]


def _parse(code: str) -> ast.Module | None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return ast.parse(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


def _defines(code: str, name: str) -> bool:
    """Whether code gives a name a value: as a function, a method of `Solution`, or otherwise."""
    tree = _parse(code)
    for node in () if tree is None else tree.body:
        inside = node.body if isinstance(node, ast.ClassDef) and node.name == "Solution" else []
        for part in (node, *inside):
            if isinstance(part, ast.FunctionDef | ast.AsyncFunctionDef) and part.name == name:
                return True
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(isinstance(target, ast.Name) and target.id == name for target in targets):
            return True
    return False


def _completed(prompt: str, code: str, name: str) -> str | None:
    """The prompt and its continuation, up to where the function ends; None if that does not parse.

    The continuation must add to the function, which the prompt alone defines as well.
    """
    if not code.strip() or code.strip() in prompt:
        return None
    function = code if code.startswith((" ", "\t", "\n")) else f"    {code}"
    for part in (function, _NEXT_STATEMENT.split(function, maxsplit=1)[0]):
        whole = prompt + part
        if _defines(whole, name) and ast.dump(ast.parse(whole)) != _dumped(prompt):
            return whole
    return None


def _dumped(code: str) -> str:
    tree = _parse(code)
    return "" if tree is None else ast.dump(tree)


def _is_program(text: str) -> bool:
    """Whether a text is Python that does something: "42" and "No" are Python, too."""
    tree = _parse(text)
    if tree is None:
        return False
    return not all(
        isinstance(node, ast.Expr) and isinstance(node.value, _SAYS_NOTHING) for node in tree.body
    )
