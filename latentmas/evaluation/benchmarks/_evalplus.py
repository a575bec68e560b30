"""The tests of EvalPlus (MBPP+ and HumanEval+), in the form of its releases and of the hub.

A row of a release has inputs as JSON, without tuples, sets and complex numbers; for some tasks of
MBPP+ they are put back here. A row of the hub has a test script instead. It is parsed, never run:
its inputs and results are literals, and the tolerance is an argument of its calls of `assertion`.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Callable, Mapping
from typing import Any

from latentmas.errors import DataError

__all__ = ["restored", "scripted"]

_FUNCTION = tuple[list[Any], list[Any] | None, float]
_NUMBERS = {"inf": math.inf, "nan": math.nan}
_MAKERS: dict[str, Callable[..., Any]] = {
    "complex": complex,
    "float": float,
    "frozenset": frozenset,
    "set": set,
}


def restored(task: int, inputs: Any) -> list[Any]:
    """Inputs of a task of MBPP+ with the types that JSON does not have.

    Args:
        task: number of the task.
        inputs: lists of arguments, as the release has them.
    """
    change = _CHANGES.get(task, list)
    return [change(arguments) for arguments in inputs or ()]


def scripted(script: str) -> _FUNCTION:
    """Inputs, results and absolute tolerance of a test script of the hub.

    Returns:
        Lists of arguments; their results, None where the script calls a reference solution
        instead; and the tolerance.

    Raises:
        DataError: The script is not as EvalPlus writes them.
    """
    try:
        nodes = list(ast.walk(ast.parse(script)))
        found = {
            target.id: _literal(node.value)
            for node in nodes
            if isinstance(node, ast.Assign)
            for target in node.targets
            if isinstance(target, ast.Name) and target.id in ("inputs", "results")
        }
        inputs, results = found["inputs"], found.get("results")
    except (SyntaxError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise DataError(f"the test script holds no `inputs` that can be read: {error}") from error
    if not isinstance(inputs, list) or not isinstance(results, list | None):
        raise DataError("`inputs` and `results` of the test script are lists")
    return inputs, results, _tolerance(nodes)


def _tolerance(nodes: list[ast.AST]) -> float:
    for node in nodes:
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and len(node.args) == 3:
            last = node.args[2]
            if node.func.id == "assertion" and isinstance(last, ast.Constant):
                return float(last.value) if isinstance(last.value, int | float) else 0.0
    return 0.0


def _literal(node: ast.expr) -> Any:
    """Value of an expression that holds literals, `inf`, `nan`, `set()` and the like."""
    match node:
        case ast.List(elts=items):
            return [_literal(item) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_literal(item) for item in items)
        case ast.Set(elts=items):
            return {_literal(item) for item in items}
        case ast.Dict(keys=keys, values=values):
            pairs = zip(keys, values, strict=True)
            return {_literal(key): _literal(value) for key, value in pairs if key is not None}
        case ast.Name(id=name) if name in _NUMBERS:
            return _NUMBERS[name]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -_literal(operand)
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub(), right=ast.Constant(value=complex())):
            return ast.literal_eval(node) if _is_plain(left) else _literal(left)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]) if name in _MAKERS:
            return _MAKERS[name](*map(_literal, arguments))
        case _:
            return ast.literal_eval(node)


def _is_plain(node: ast.expr) -> bool:
    return not any(isinstance(part, ast.Name) for part in ast.walk(node))


# --- types that JSON does not have ---------------------------------------------------------------

Change = Callable[[list[Any]], list[Any]]


def _all_tuples(arguments: list[Any]) -> list[Any]:
    """Every argument is a tuple."""
    return [tuple(argument) for argument in arguments]


def _lists_of_tuples(arguments: list[Any]) -> list[Any]:
    """Every argument is a list of tuples."""
    return [[tuple(item) for item in argument] for argument in arguments]


def _tuples_of_tuples(arguments: list[Any]) -> list[Any]:
    """Every argument is a tuple of tuples."""
    return [tuple(map(tuple, argument)) for argument in arguments]


def _first_lists_tuples(arguments: list[Any]) -> list[Any]:
    """The first argument is a list of tuples."""
    return [[tuple(item) for item in arguments[0]], *arguments[1:]]


def _first_tuple(arguments: list[Any]) -> list[Any]:
    """The first argument is a tuple."""
    return [tuple(arguments[0]), *arguments[1:]]


def _second_tuple(arguments: list[Any]) -> list[Any]:
    """The second argument is a tuple."""
    return [arguments[0], tuple(arguments[1]), *arguments[2:]]


def _mixed_tuple(arguments: list[Any]) -> list[Any]:
    """The first argument is a tuple in which lists are tuples, too."""
    first = (tuple(item) if isinstance(item, list) else item for item in arguments[0])
    return [tuple(first), *arguments[1:]]


def _deep_tuples(arguments: list[Any]) -> list[Any]:
    """Every list in the arguments is a tuple."""

    def change(value: Any) -> Any:
        return tuple(map(change, value)) if isinstance(value, list) else value

    return list(map(change, arguments))


def _sets(arguments: list[Any]) -> list[Any]:
    """The argument is a list of sets; the release's authors use an empty dictionary for no set."""
    return [[set(item) if isinstance(item, list) and item else {} for item in arguments[0]]]


def _float_and_complex(arguments: list[Any]) -> list[Any]:
    return [float(arguments[0]), complex(arguments[1])]


def _complex(arguments: list[Any]) -> list[Any]:
    return [complex(arguments[0])]


def _tuples_by_key(arguments: list[Any]) -> list[Any]:
    """The first argument is a dictionary whose values are tuples."""
    return [{key: tuple(value) for key, value in arguments[0].items()}, *arguments[1:]]


_TASKS: Mapping[Change, tuple[int, ...]] = {
    _all_tuples: (
        *(2, 116, 132, 143, 222, 261, 273, 394, 399, 421, 424, 429, 470, 560, 579, 596, 616, 630),
        *(726, 740, 744, 809),
    ),
    _lists_of_tuples: (63, 64, 70, 94, 120, 237, 272, 299, 400, 409, 417, 438, 473, 614, 780),
    _first_lists_tuples: (75, 413, 444, 753),
    _second_tuple: (106, 750),
    _first_tuple: (250, 307, 405, 446, 617, 720, 763, 808),
    _tuples_of_tuples: (259, 401, 445),
    _mixed_tuple: (278,),
    _deep_tuples: (580, 615, 791),
    _sets: (115,),
    _float_and_complex: (124,),
    _complex: (252,),
    _tuples_by_key: (722,),
}
_CHANGES = {task: change for change, tasks in _TASKS.items() for task in tasks}
