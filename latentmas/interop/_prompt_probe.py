"""Run the prompt builders of a clone. This file is a separate program and is never imported.

It reads a JSON request from stdin, loads one file of the clone by its path, calls the builders
with made-up questions and prints one line of JSON. `prompts.py` runs it in isolated mode with only
the standard library; packages of the clone are loaded without their `__init__`, which may import
torch.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

HOLE = "\0"
"""Placeholder for the question in a prompt, so that only the wording is compared."""


class Failure(Exception):
    """A problem that the user has to fix."""


class BarePackages(MetaPathFinder):
    """Import hook that treats folders of the clone as packages without running `__init__`."""

    def __init__(self, roots: Sequence[Path], own: Path) -> None:
        self.roots = roots
        self.own = own

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        """Find the folder of that name; `release_code` is the folder of the prompts' file."""
        name = fullname.rpartition(".")[2]
        places = self.roots if path is None else [Path(place) for place in path]
        found = [place / name for place in places if (place / name).is_dir()]
        if path is None and name in sys.stdlib_module_names:
            return None
        if fullname == "release_code":
            found.append(self.own)
        if not found:
            return None
        spec = ModuleSpec(fullname, None, is_package=True)
        spec.submodule_search_locations = [str(folder) for folder in found]
        return spec


def load(path: Path, root: Path) -> ModuleType:
    """Load the module at `path`, which may import modules next to it."""
    roots = list(dict.fromkeys((path.parent, root)))
    sys.meta_path.insert(0, BarePackages(roots, path.parent))
    sys.path[:0] = [str(folder) for folder in roots]
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise Failure("cannot be loaded: it is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        raise Failure(f"cannot be loaded: {said(error)}") from error
    return module


def said(error: BaseException) -> str:
    """An error on one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}".rstrip(": ")


def attribute(module: ModuleType, name: str) -> Any:
    """Look up a name in the module."""
    if not hasattr(module, name):
        raise Failure(f"has no {name}")
    return getattr(module, name)


def asker(module: ModuleType, call: dict[str, Any]) -> Callable[[str], str]:
    """Return a function from question to prompt, with the keywords that the builder accepts."""
    name = call["builder"]
    builder = attribute(module, name)
    known = inspect.signature(builder).parameters
    keywords = {key: value for key, value in call["keywords"].items() if key in known}

    def ask(question: str) -> str:
        try:
            prompt = builder(question, *call["positional"], **keywords)
        except BaseException as error:
            raise Failure(f"{name}() raised {said(error)}") from error
        if not isinstance(prompt, str):
            raise Failure(f"{name}() returned {type(prompt).__name__}, not text")
        return prompt

    return ask


def trigger(ask: Callable[[str], str], question: str) -> dict[str, Any] | None:
    """Find the shortest text in the prompt that changes the wording if the question contains it.

    A builder may omit a line that the question already has. To find it, put each line of the prompt
    into the question, and shorten a line that has an effect to the part that the builder checks.
    """

    def frame(extra: str) -> str:
        asked = question.replace(HOLE, extra)
        prompt = ask(asked)
        for form in (asked, asked.rstrip(), asked.lstrip(), asked.strip()):
            prompt = prompt.replace(form, HOLE)
        return prompt

    usual = frame("")
    for line in usual.split("\n"):
        if HOLE in line or not line.strip() or frame(line) == usual:
            continue
        while frame(line[1:]) != usual:
            line = line[1:]
        while frame(line[:-1]) != usual:
            line = line[:-1]
        return {"text": line, "any_case": usual not in (frame(line.upper()), frame(line.lower()))}
    return None


def probe(module: ModuleType, request: dict[str, Any], call: dict[str, Any]) -> dict[str, Any]:
    """Collect one builder's prompts for all the made-up questions."""
    ask = asker(module, call)
    found = trigger(ask, request["questions"]["plain"])
    text = found["text"] if found else ""
    probes = {name: question.replace(HOLE, "") for name, question in request["questions"].items()}
    probes |= {
        f"{name}+": question.replace(HOLE, text) for name, question in request["questions"].items()
    }
    checks = list(request["checks"])
    checks += [f"Before {getattr(module, slot)} after" for slot in call["slots"]]
    checks += [f"Before {text.swapcase()} after", f"{text}\n"] if text else []
    return {
        "trigger": found,
        "probes": {name: [question, ask(question)] for name, question in probes.items()},
        "checks": [[question, ask(question)] for question in checks],
    }


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Answer a whole request."""
    module = load(Path(request["file"]), Path(request["root"]))
    slots = {name: str(attribute(module, name)) for name in request["slots"]}
    system = attribute(module, "get_system_prompt")
    systems = {}
    for agent, role in request["systems"].items():
        try:
            systems[agent] = str(system(request["design"], role))
        except BaseException as error:
            raise Failure(f"get_system_prompt() raised {said(error)}") from error
    calls = {key: probe(module, request, call) for key, call in request["calls"].items()}
    return {"slots": slots, "systems": systems, "calls": calls}


def main() -> None:
    """Answer one request, discarding whatever the clone prints."""
    request = json.loads(sys.stdin.buffer.read())
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as out:
        # Redirect file descriptors, not sys.stdout: extension modules write to them directly.
        nowhere = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(nowhere, stream)
        try:
            found = answer(request)
        except Failure as failure:
            found = {"failure": str(failure)}
        out.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
