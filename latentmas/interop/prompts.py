"""`import_prompts`: extract the exact prompts of the published code from a user's clone of it.

This package contains none of the published prompts. Given a clone of that code, this module runs
its prompt builders on made-up questions in a separate process and converts the resulting prompts
to templates. **This executes code of the clone**, so it happens only on request.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from latentmas.errors import DataError, UnknownNameError
from latentmas.interop._prompt_jinja import OPTIONS, branch, literal, pieces, quoted
from latentmas.interop._prompt_layouts import FILES, TASKS, Layout, Role, layout_of
from latentmas.interop._styles import find_style
from latentmas.prompts import render_prompt
from latentmas.safe_data import parse_json
from latentmas.spec import AgentSpec

__all__ = ["import_prompts"]

_PROBE = Path(__file__).with_name("_prompt_probe.py")
_KEPT = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "SYSTEMROOT", "TMPDIR", "TEMP", "TMP")
"""The only environment variables that the clone's code sees."""
_NONCE = "q7wv2kz"
_FUNCTION = "f7wv2kz"
_QUESTIONS = {  # \0 is replaced by text that may change the prompt and never contains U+E000
    "plain": f" \t{_NONCE} \ue000\0\ue000 \n{_NONCE} now \n ",
    "options": f" \t{_NONCE} \ue000\0\ue000 \nA) one\nB) two\n {_NONCE} \n ",
}
_CHECKS = (
    *("What is 3 + 4?", "", " ", "  padded \n\n", "é中 n≥1", "{{ x }} {% y %} {# z #} }} {"),
    *("Pick.\nA) one\nB) two", "a: (0, 0) is near\nb", "Pick.\n\n  d\n-\tlast", "\x0bB. c"),
    *("E) none\nF) all", "A)none", "see A) here", "x\rA) y", "Aa) no", "C\n)\nx"),
)
"""Questions for comparing the templates with the builders."""


def import_prompts(
    clone: str | Path,
    style: str,
    *,
    task: str = "math",
    function: bool = False,
    timeout: float = 60.0,
) -> dict[str, dict[str, str]]:
    """Import the prompts of a clone of the published RecursiveMAS code as a prompt pack.

    This runs Python code of the clone in a separate process that does not inherit the environment
    but is not sandboxed. Use it only with code that you trust.

    The templates render exactly what the builders return: they strip the question where the
    builders do, and they branch where the builders use different wording for a question with
    options `A) …` or with a sentence that they would otherwise add. A warning reports anything
    that a template cannot express. For code, the planner's prompt from round 2 on is the code
    prompt, which the published links were trained with; the published inference code uses the
    mathematics prompt there.

    Args:
        clone: top-level folder of the clone.
        style: `sequential_light`, `sequential_scaled`, `mixture`, `distillation` or `deliberation`.
        task: `"math"`, `"code"`, `"choice"` or `"search"` (which uses the mathematics prompts).
        function: for code, ask for a function instead of a program that reads stdin. The sample
            field `fn_name` names the function and must be one of the graph's inputs.
        timeout: time limit for the clone's code, in seconds.

    Returns:
        Agent → `{"system": …, "prompt": …}`, both Jinja2 templates.

    Raises:
        UnknownNameError: the style or task is unknown.
        DataError: the clone is missing, lacks a builder, fails or takes too long.
    """
    template = find_style(style).template
    if task not in TASKS:
        raise UnknownNameError("task", task, TASKS)
    if function and task != "code":
        raise DataError(f"function=True requires task='code', not task={task!r}")
    root, path = _located(Path(clone))
    layout = layout_of(template, task)
    request = _request(layout, TASKS[task], function)
    found = _ask(request | {"root": str(root), "file": str(path)}, root, path, timeout)
    pack = {agent: _agent(path, agent, role, found) for agent, role in layout.agents.items()}
    for agent, role in layout.agents.items():
        _compare(path, agent, role, pack[agent], found)
    return pack


# --- requests -----------------------------------------------------------------------------------


def _located(clone: Path) -> tuple[Path, Path]:
    """The clone and the file in it that holds the builders."""
    if not clone.is_dir():
        raise DataError(f"{str(clone)!r} is not a folder; give a clone of the RecursiveMAS code")
    root = clone.resolve()
    for name in FILES:
        if (root / name).is_file():
            return root, root / name
    raise DataError(
        f"{str(clone)!r} holds none of {', '.join(FILES)}; "
        "give the top-level folder of a clone of the RecursiveMAS code"
    )


def _request(layout: Layout, task: str, function: bool) -> dict[str, Any]:
    kind = {"mas_task": task, "task_type": "function" if function else "complete"}
    names = {"": None, ".named": _FUNCTION} if function else {"": None}
    calls = {
        f"{agent}.{turn}{suffix}": {
            "builder": builder,
            "positional": role.positional,
            "keywords": kind | {"fn_name": name},
            "slots": list(slots),
        }
        for agent, role in layout.agents.items()
        for turn, builder, slots in _turns(role)
        for suffix, name in names.items()
    }
    return {
        "design": layout.design,
        "systems": {agent: role.role for agent, role in layout.agents.items()},
        "slots": sorted({slot for call in calls.values() for slot in call["slots"]}),
        "questions": _QUESTIONS,
        "checks": _CHECKS,
        "calls": calls,
    }


def _turns(role: Role) -> list[tuple[str, str, Mapping[str, str]]]:
    """Name, builder and slots of each of the agent's prompts."""
    turns = [("first", role.first, role.slots)]
    if role.later and role.feedback:
        turns.append(("later", role.later, {**role.slots, role.feedback: "feedback"}))
    return turns


def _ask(request: dict[str, Any], root: Path, path: Path, timeout: float) -> dict[str, Any]:
    """Answer the request in a separate process."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-B", "-X", "utf8", str(_PROBE)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=root,
        env={name: os.environ[name] for name in _KEPT if name in os.environ},
        start_new_session=True,  # a process group of its own, which `_end` can kill as a whole
    )
    with process:
        try:
            out, err = process.communicate(json.dumps(request).encode(), timeout)
        except subprocess.TimeoutExpired as error:
            raise DataError(
                f"{path}: its prompt builders took longer than {timeout:g} s; fix the cause, "
                "or allow more time with timeout= (--timeout)"
            ) from error
        finally:
            _end(process)
    try:
        found = parse_json(out, numbers="any")
    except ValueError:
        found = None
    if isinstance(found, dict) and "failure" in found:
        raise DataError(f"{path} {found['failure']}; {_advice(found['failure'])}")
    if not isinstance(found, dict) or not {"slots", "systems", "calls"} <= set(found):
        tail = " ".join(err.decode(errors="replace").split())[-300:]
        raise DataError(
            f"{path}: the process that ran its prompt builders ended with exit code "
            f"{process.returncode} and no usable answer{': ' + tail if tail else ''}; "
            "use a clean clone of the RecursiveMAS code"
        )
    return found


def _end(process: subprocess.Popen[bytes]) -> None:
    """Kill the process and its children if it is still running."""
    if process.poll() is not None:
        return
    if hasattr(os, "killpg"):
        with contextlib.suppress(OSError):  # it exited in the meantime
            os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()


def _advice(failure: str) -> str:
    if "ModuleNotFoundError" in failure:
        return "it runs with only the standard library and the clone's own files"
    return "use a clean clone of the RecursiveMAS code"


# --- templates ----------------------------------------------------------------------------------


def _agent(path: Path, agent: str, role: Role, found: dict[str, Any]) -> dict[str, str]:
    turns = {
        turn: _named(path, f"{agent}.{turn}", builder, slots, found)
        for turn, builder, slots in _turns(role)
    }
    parts = branch("feedback", turns["later"], turns["first"]) if len(turns) > 1 else turns["first"]
    return {"system": literal(found["systems"][agent]), "prompt": "".join(parts)}


def _named(
    path: Path, key: str, builder: str, slots: Mapping[str, str], found: dict[str, Any]
) -> list[str]:
    """Pieces of one prompt, with a branch for a named function if the task may have one."""
    where = f"{path}: {builder}()"
    marks = [(found["slots"][constant], slot) for constant, slot in slots.items()]
    parts = _worded(where, found["calls"][key], marks)
    if f"{key}.named" in found["calls"]:
        marks.append((_FUNCTION, "fn_name"))
        parts = branch("fn_name", _worded(where, found["calls"][f"{key}.named"], marks), parts)
    return parts


def _worded(where: str, call: dict[str, Any], marks: list[tuple[str, str]]) -> list[str]:
    """Pieces of one prompt, with branches on the content of the question."""

    def said(name: str) -> list[str]:
        question, prompt = call["probes"][name]
        parts = pieces(prompt, [*marks, *_forms(question)])
        _check_pieces(where, parts, [slot for _, slot in marks if slot != "fn_name"])
        return parts

    def triggered(name: str) -> list[str]:
        if call["trigger"] is None:
            return said(name)
        text, any_case = call["trigger"]["text"], call["trigger"]["any_case"]
        test = (
            f"{quoted(text.lower())} in question|lower"
            if any_case
            else (f"{quoted(text)} in question")
        )
        return branch(test, said(f"{name}+"), said(name))

    return branch("seen.options", triggered("options"), triggered("plain"), before=OPTIONS)


def _forms(question: str) -> list[tuple[str, str]]:
    """The forms in which builders show the question, each with its Jinja expression."""
    return [
        (question, "question"),
        (question.rstrip(), "question.rstrip()"),
        (question.lstrip(), "question.lstrip()"),
        (question.strip(), "question.strip()"),
    ]


def _check_pieces(where: str, parts: list[str], slots: list[str]) -> None:
    """Check that each slot appears once, and that the question appears unchanged.

    Raises:
        DataError: a slot or the question does not.
    """
    for slot in slots:
        count = parts.count(f"{{{{ {slot} }}}}")
        if count != 1:
            raise DataError(f"{where} places the mark of the slot {slot!r} {count} times, not once")
    if not any(part.startswith("{{ question") for part in parts):
        raise DataError(
            f"{where} does not show the question unchanged; a template cannot express that"
        )


def _compare(
    path: Path, agent: str, role: Role, own: Mapping[str, str], found: dict[str, Any]
) -> None:
    """Warn about questions for which the template differs from the builder's prompt."""
    spec = AgentSpec(name=agent, backbone="none", prompt=own["prompt"], system=own["system"])
    for turn, builder, slots in _turns(role):
        values = {slot: found["slots"][constant] for constant, slot in slots.items()}
        for suffix, name in (("", {}), (".named", {"fn_name": _FUNCTION})):
            call = found["calls"].get(f"{agent}.{turn}{suffix}", {"checks": [], "probes": {}})
            for question, prompt in (*call["checks"], *call["probes"].values()):
                turns = render_prompt(spec, values | name | {"question": question}).turns
                if turns[-1].content != prompt:
                    warnings.warn(
                        f"{path}: {builder}() returns a prompt that differs from the template of "
                        f"{agent!r} for questions such as {question!r}",
                        stacklevel=3,
                    )
                    break
