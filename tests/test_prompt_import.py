"""Prompts from a clone of the published code; here from a clone in words of our own."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import subprocess
import sys
import time
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from latentmas import templates
from latentmas.cli.saved.interop import import_prompts as command
from latentmas.errors import DataError, LatentMASError, UnknownNameError
from latentmas.interop._prompt_jinja import branch, literal, pieces, quoted
from latentmas.interop._prompt_layouts import FILES, TASKS, Role, layout_of
from latentmas.interop._styles import STYLES
from latentmas.interop.prompts import import_prompts
from latentmas.prompts.packs import read_prompt_pack
from latentmas.prompts.render import render_prompt
from latentmas.spec import AgentSpec, Backbone

NOTES = 'system_prompt = "Tools: <calc>{{ 1 }}</calc> {% or {# none"\n'
BUILDERS = r"""
import re
from dataclasses import dataclass
from typing import Optional

from HOME.reflector_tool_notes import system_prompt as TOOLS

PLANNER_SLOT, REFINED_SLOT, FEEDBACK_SLOT = "[[P]]", "[[R]]", "[[F]]"
HIE_MATH_EXPERT_SLOT, HIE_CODE_EXPERT_SLOT = "[[HM]]", "[[HC]]"
HIE_SCIENCE_EXPERT_SLOT, HIE_FEEDBACK_SLOT = "[[HS]]", "[[HF]]"
DISTILL_EXPERT_SLOT, DISTILL_FEEDBACK_SLOT = "[[DE]]", "[[DF]]"
DELIBERATION_REFLECTOR_SLOT, DELIBERATION_FEEDBACK_SLOT = "[[LR]]", "[[LF]]"


@dataclass(frozen=True)
class Unused:
    text: Optional[str] = None


def get_system_prompt(mas_design="chain", mas_role=None):
    return TOOLS if mas_design == "deliberation" else f"One of us, {mas_design}.\n"


def _asked(question, mas_task, task_type, fn_name):
    if mas_task == "code":
        called = f" that we can call as {fn_name}" if fn_name else ""
        kind = f"a function{called}" if task_type == "function" else "a script"
        return f"Make {kind}.\nWhat it does {{{question}}}\n"
    if mas_task == "choice":
        question = question.rstrip()
        if "letter wins" not in question.lower():
            question += "\n\nOne Letter wins, {{ no more }}"
    return f"Asked:\r\n{question}\n"


def _ending(question, mas_task):
    if mas_task == "code":
        return "Close with {% code %}"
    lettered = re.search(r"(?mi)^\s*[A-D]\s*[\.\):\-]\s+", question)
    return "Close with its letter in \\boxed{" if lettered else "Close with {# a value #}"


def _code(task_type, fn_name):
    return _asked("", "code", task_type, fn_name).split("\n")[0]


def build_math_planner_prompt(question):
    return f"{question}"


def build_math_planner_prompt_with_feedback_slot(question):
    return f"Again:\n{question}\nLast time: {FEEDBACK_SLOT}"


def build_math_refiner_prompt_with_slot(question):
    return f"Sharpen {PLANNER_SLOT} for {question}\n\n"


def build_math_solver_prompt_with_slots(question, args=None, mas_shape="chain"):
    assert args is None and mas_shape == "chain"
    return f"{{{REFINED_SLOT}}}\n---\n{question.strip()}\n" + _ending(question, "math")


def build_code_planner_prompt(question, task_type, fn_name=None):
    return _code(task_type, fn_name) + question.lstrip()


def build_code_planner_prompt_with_feedback_slot(question, task_type, fn_name=None):
    return FEEDBACK_SLOT + _code(task_type, fn_name) + f"{question}{question}"


def build_code_refiner_prompt_with_slot(question, task_type, fn_name=None):
    return f"{PLANNER_SLOT}{question}{_code(task_type, fn_name)}"


def build_code_solver_prompt_with_slots(question, task_type, args=None, fn_name=None):
    asked = _asked(question, "code", task_type, fn_name)
    return f"{REFINED_SLOT}{asked}{_ending(question, 'code')}"


def build_hie_expert_prompt(question, hie_role, mas_task="math", task_type="", fn_name=None):
    return f"As {hie_role}:\n{_asked(question, mas_task, task_type, fn_name)}"


def build_hie_expert_prompt_with_feedback_slot(
    question, hie_role, mas_task="math", task_type="", fn_name=None
):
    told = f"They said {HIE_FEEDBACK_SLOT}.\n"
    return f"As {hie_role}:\n{told}{_asked(question, mas_task, task_type, fn_name)}"


def build_hie_summarizer_prompt_with_slots(question, mas_task="math", task_type="", fn_name=None):
    heard = f"{HIE_MATH_EXPERT_SLOT}{HIE_CODE_EXPERT_SLOT}\n{HIE_SCIENCE_EXPERT_SLOT}\n"
    return heard + _asked(question, mas_task, task_type, fn_name) + _ending(question, mas_task)


def build_distill_expert_prompt(question, mas_task="math", task_type="", fn_name=None):
    return _asked(question, mas_task, task_type, fn_name) + "Plan it.\nNothing else."


def build_distill_expert_prompt_with_feedback_slot(
    question, mas_task="math", task_type="", fn_name=None
):
    told = f"Heard {DISTILL_FEEDBACK_SLOT}\n"
    return told + build_distill_expert_prompt(question, mas_task, task_type, fn_name)


def build_distill_learner_prompt_with_slot(question, mas_task="math", task_type="", fn_name=None):
    asked = _asked(question, mas_task, task_type, fn_name)
    return f"Follow {DISTILL_EXPERT_SLOT}\n{asked}{_ending(question, mas_task)}"


def build_deliberation_reflector_prompt(question, mas_task="math", task_type="", fn_name=None):
    return "Reflect.\n" + _asked(question, mas_task, task_type, fn_name)


def build_deliberation_reflector_prompt_with_feedback_slot(
    question, mas_task="math", task_type="", fn_name=None
):
    asked = _asked(question, mas_task, task_type, fn_name)
    return f"Reflect.\nOn {DELIBERATION_FEEDBACK_SLOT}\n{asked}"


def build_deliberation_toolcaller_prompt_with_slot(
    question, mas_task="math", task_type="", fn_name=None
):
    asked = _asked(question, mas_task, task_type, fn_name)
    return f"{DELIBERATION_REFLECTOR_SLOT}\n{asked}{_ending(question, mas_task)}"
"""
KINDS = [("math", False), ("code", False), ("code", True), ("choice", False), ("search", False)]
ATOMS = (
    *("A", "b", "E", ")", ".", ":", "-", " ", "\n", "\t", "\r", "\x0b", "\u2028", "é", "x", "'"),
    *("{{", "}}", "{%", "%}", "{#", "#}", "{", "}", "\\n", "{{ plan }}", "question"),
    *("letter wins", "LETTER Wins", "One Letter wins, {{ no more }}", "[[P]]", "[[HF]]", "[[R]]"),
)
questions = st.one_of(st.lists(st.sampled_from(ATOMS), max_size=12).map("".join), st.text())


def make_clone(folder: Path, file: str = "prompts.py", home: str = "inference_utils") -> Path:
    """A clone with its builders in `file`; packages there would fail if they were run."""
    path = folder / file
    notes = path.parent / "inference_utils"
    notes.mkdir(parents=True)
    for package in {notes, path.parent}:
        (package / "__init__.py").write_text("import torch_that_is_not_there\n")
    (notes / "reflector_tool_notes.py").write_text(NOTES)
    path.write_text(BUILDERS.replace("HOME", home))
    return folder


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clone(tmp_path_factory.mktemp("clone"), home="release_code.inference_utils")


@pytest.fixture(scope="module")
def builders(tmp_path_factory: pytest.TempPathFactory) -> Iterator[types.ModuleType]:
    """The builders in this process, as an oracle."""
    path = tmp_path_factory.mktemp("oracle") / "oracle_of_prompts.py"
    text = BUILDERS.replace("from HOME.reflector_tool_notes import system_prompt as TOOLS", NOTES)
    path.write_text(text.replace("system_prompt =", "TOOLS ="))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[path.stem]


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "GITHUB_ACTIONS", "PY_COLORS"):
        monkeypatch.delenv(name, raising=False)


_packs: dict[Any, dict[str, dict[str, str]]] = {}


def pack_of(clone: Path, style: str, task: str, function: bool) -> dict[str, dict[str, str]]:
    key = (clone, style, task, function)
    if key not in _packs:
        _packs[key] = import_prompts(clone, style, task=task, function=function)
    return _packs[key]


def turns_of(role: Role) -> list[tuple[str, dict[str, str]]]:
    """Builder and slots of each prompt of an agent."""
    first = (role.first, dict(role.slots))
    if role.later is None or role.feedback is None:
        return [first]
    return [first, (role.later, {**role.slots, role.feedback: "feedback"})]


def said(
    module: types.ModuleType,
    role: Role,
    builder: str,
    slots: dict[str, str],
    question: str,
    **known,
) -> str:
    """What a builder returns, with `<slot>` where it places a slot."""
    old = {constant: getattr(module, constant) for constant in slots}
    build = getattr(module, builder)
    keywords = {k: v for k, v in known.items() if k in inspect.signature(build).parameters}
    try:
        for constant in slots:
            setattr(module, constant, f"\x01{constant}\x01")
        text = build(question, *role.positional, **keywords)
    finally:
        for constant, value in old.items():
            setattr(module, constant, value)
    for constant, slot in slots.items():
        text = text.replace(f"\x01{constant}\x01", f"<{slot}>")
    return text


# --- the templates say what the builders say ----------------------------------------------------


@pytest.mark.parametrize(("task", "function"), KINDS)
@pytest.mark.parametrize("style", STYLES)
@given(question=questions, name=st.sampled_from(["", "solve", "{{ it }}"]))
def test_templates_render_what_builders_return(
    clone: Path,
    builders: types.ModuleType,
    style: str,
    task: str,
    function: bool,
    question: str,
    name: str,
) -> None:
    pack = pack_of(clone, style, task, function)
    layout = layout_of(STYLES[style].template, task)
    assert list(pack) == list(layout.agents)
    known: dict[str, Any] = {"mas_task": TASKS[task], "task_type": "complete", "fn_name": None}
    if function:
        known |= {"task_type": "function", "fn_name": name}
    for agent, role in layout.agents.items():
        spec = AgentSpec(name=agent, backbone="b", **pack[agent])
        for builder, slots in turns_of(role):
            values = {slot: f"<{slot}>" for slot in slots.values()} | {"question": question}
            values |= {"fn_name": name} if function else {}
            system, user = render_prompt(spec, values).turns
            assert user.content == said(builders, role, builder, slots, question, **known)
            assert system.content == builders.get_system_prompt(layout.design, role.role)


@pytest.mark.parametrize("file", FILES)
def test_each_layout_gives_the_same(tmp_path: Path, clone: Path, file: str) -> None:
    other = make_clone(tmp_path / "clone", file)
    for style in STYLES:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert import_prompts(other, style) == pack_of(clone, style, "math", False)
    assert not list(other.rglob("__pycache__")), "the clone stays as it is"


def test_the_first_file_is_taken(tmp_path: Path) -> None:
    folder = make_clone(tmp_path, "inference/prompts.py")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "mas_prompt.py").write_text("raise SystemExit")
    assert import_prompts(str(folder), "distillation")


def test_a_relative_folder_is_found(
    tmp_path: Path, clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clone.parent)
    assert import_prompts(clone.name, "mixture") == pack_of(clone, "mixture", "math", False)


def test_what_rounds_share_stands_once(clone: Path) -> None:
    pack = pack_of(clone, "distillation", "math", False)
    assert pack["expert"]["prompt"] == (
        "{% if feedback %}Heard {{ feedback }}\n{% endif %}"
        "Asked:{{ '\\r' }}\n{{ question }}\nPlan it.\nNothing else."
    )
    pack = pack_of(clone, "distillation", "choice", False)
    assert "{% if not ('letter wins' in question|lower) %}" in pack["expert"]["prompt"]
    assert "seen.options" not in pack["expert"]["prompt"]


@pytest.mark.parametrize("style", STYLES)
def test_graphs_with_these_prompts_compile(clone: Path, style: str) -> None:
    tiny = Backbone("package:latentmas/demo/backbones/planner")
    template = STYLES[style].template
    names = [name for name in STYLES[style].roles if name != "summarizer"]
    own: dict[str, Any] = {name.replace("toolcaller", "tool_caller"): tiny for name in names}
    if template == "mixture":
        own = {"experts": own, "summarizer": tiny}
    for task, function in KINDS:
        inputs = ["question", "fn_name"] if function else ["question"]
        prompts = pack_of(clone, style, task, function)
        graph = templates.get(template)(**own, inputs=inputs, prompts=prompts, rounds=2)
        assert {agent.name for agent in graph.compile().graph.agents} == set(prompts)


# --- Jinja --------------------------------------------------------------------------------------

marked = st.lists(st.sampled_from([*ATOMS, "\0", "\\", '"']), max_size=10).map("".join)


def rendered(source: str, **values: str) -> str:
    spec = AgentSpec(name="a", backbone="b", prompt=source)
    return render_prompt(spec, values).turns[0].content


@given(marked, marked)
def test_literal_text_stays(one: str, other: str) -> None:
    source = literal(one) + "{{ x }}" + literal(other) + "{% if x %}" + literal(one) + "{% endif %}"
    assert rendered(source, x="|") == f"{one}|{other}{one}"
    assert rendered(f"{{{{ {quoted(one)} }}}}") == one


@given(marked, marked)
def test_branches_say_what_they_hold(one: str, other: str) -> None:
    yes, no = pieces(f"{one}\nQ\n{other}", [("Q", "q")]), pieces(f"{one}Q\n{other}", [("Q", "q")])
    source = "".join(branch("yes", yes, no))
    assert rendered(source, yes="1", q="?") == f"{one}\nQ\n{other}".replace("Q", "?")
    assert rendered(source, yes="", q="?") == f"{one}Q\n{other}".replace("Q", "?")


# --- what goes wrong ----------------------------------------------------------------------------


def broken(tmp_path: Path, old: str, new: str) -> Path:
    """A clone whose builders have `new` instead of `old`."""
    folder = make_clone(tmp_path / "clone")
    text = (folder / "prompts.py").read_text()
    assert old in text
    (folder / "prompts.py").write_text(text.replace(old, new))
    return folder


PLAN = 'return f"{question}"'


@pytest.mark.parametrize(
    ("old", "new", "found"),
    [
        ("import re\n", "import re, torch_that_is_not_there\n", "the standard library"),
        ("import re\n", "import re (\n", "cannot be loaded: SyntaxError"),
        ("import re\n", "raise SystemExit(3)\n", "cannot be loaded: SystemExit: 3"),
        ("import re\n", "raise KeyError\n", "cannot be loaded: KeyError;"),
        ("import re\n", "import re, os; os._exit(3)\n", "exit code 3 and no usable answer"),
        ("build_math_planner_prompt(", "plan(", "has no build_math_planner_prompt"),
        ("get_system_prompt", "system", "has no get_system_prompt"),
        ("FEEDBACK_SLOT", "FEEDBACK", "has no FEEDBACK_SLOT"),
        (
            PLAN,
            'raise ValueError("no\\nplan")',
            "build_math_planner_prompt() raised ValueError: no",
        ),
        (PLAN, "import sys; sys.exit()", "build_math_planner_prompt() raised SystemExit"),
        (PLAN, "return question.encode()", "returned bytes, not text"),
        (PLAN, "return question.upper()", "does not show the question unchanged"),
        (PLAN, 'return "always the same"', "does not show the question unchanged"),
        ("{PLANNER_SLOT} for", "", "places the mark of the slot 'plan' 0 times"),
        ("{PLANNER_SLOT} for", "{PLANNER_SLOT}{PLANNER_SLOT}", "slot 'plan' 2 times"),
        (
            'return TOOLS if mas_design == "deliberation" else',
            "raise",
            "get_system_prompt() raised",
        ),
        (PLAN, "raise BaseException", "raised BaseException"),
    ],
)
def test_a_broken_clone_is_explained(tmp_path: Path, old: str, new: str, found: str) -> None:
    with pytest.raises(DataError) as caught:
        import_prompts(broken(tmp_path, old, new), "sequential_light")
    assert found in str(caught.value)
    assert str(tmp_path / "clone" / "prompts.py") in str(caught.value)
    assert "Traceback" not in str(caught.value)


def test_folders_without_builders_are_explained(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        import_prompts(tmp_path / "none", "mixture")
    with pytest.raises(DataError, match=r"holds none of prompts\.py, inference/prompts\.py"):
        import_prompts(tmp_path, "mixture")


def test_what_is_asked_for_must_exist(clone: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'mixture'"):
        import_prompts(clone, "mixtrue")
    with pytest.raises(UnknownNameError, match="unknown task 'maths'"):
        import_prompts(clone, "mixture", task="maths")
    with pytest.raises(DataError, match="requires task='code'"):
        import_prompts(clone, "mixture", function=True)


@pytest.mark.parametrize("where", ["import re\n", "    " + PLAN])
def test_endless_loops_end(tmp_path: Path, where: str) -> None:
    indent = where[: len(where) - len(where.lstrip())]
    loop = f"{indent}while True: print('again')\n"
    folder = broken(tmp_path, where, loop)
    begin = time.monotonic()
    with pytest.raises(DataError, match=r"took longer than 0\.5 s"):
        import_prompts(folder, "sequential_light", timeout=0.5)
    assert time.monotonic() - begin < 100


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="process groups are of POSIX")
def test_processes_that_it_started_end_with_it(tmp_path: Path) -> None:
    child = "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']).pid"
    note = f"open({str(tmp_path / 'pid')!r}, 'w').write(str({child}))"
    loop = f"import re, subprocess, sys, time\n{note}\ntime.sleep(600)\n"
    folder = broken(tmp_path, "import re\n", loop)
    for seconds in (1, 2, 4, 8, 16, 32):  # until there is time enough for it to start a child
        with pytest.raises(DataError, match="took longer"):
            import_prompts(folder, "mixture", timeout=seconds)
        if (tmp_path / "pid").exists() and (tmp_path / "pid").read_text():
            break
    pid, until = int((tmp_path / "pid").read_text()), time.monotonic() + 100
    while time.monotonic() < until:
        done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
        if not done.stdout.strip() or done.stdout.startswith("Z"):
            return
        time.sleep(0.05)
    pytest.fail("the child lives on")


GARBAGE = """
import os
for descriptor in range(3, 9):
    try:
        os.write(descriptor, b"garbage")
    except OSError:
        pass
os._exit(0)
"""


def test_noise_is_no_answer(tmp_path: Path) -> None:
    noise = "import re, os, sys\nprint('{}')\nos.write(1, b'[]')\nsys.stdin.read()\n"
    assert import_prompts(broken(tmp_path, "import re\n", noise), "mixture")
    folder = make_clone(tmp_path / "other")
    (folder / "prompts.py").write_text(GARBAGE)
    with pytest.raises(DataError, match="exit code 0 and no usable answer"):
        import_prompts(folder, "mixture")


def test_the_code_sees_no_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MY_TOKEN", "secret")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    look = f"import re, json, os, sys\nopen({str(tmp_path / 'seen')!r}, 'w').write(json.dumps("
    look += "{'env': dict(os.environ), 'cwd': os.getcwd(), 'path': sys.path}))\n"
    folder = broken(tmp_path, "import re\n", look)
    import_prompts(folder, "mixture")
    seen = json.loads((tmp_path / "seen").read_text())
    assert not {"MY_TOKEN", "PYTHONPATH", "HOME"} & set(seen["env"])
    assert seen["cwd"] == str(folder.resolve())
    assert str(tmp_path) not in seen["path"]
    assert not [place for place in seen["path"] if place.endswith("site-packages")]


@pytest.mark.parametrize(
    "change",
    [
        'return f"{question}" + ("!" if "E) none" in question else "")',
        'return f"{question}" if question.strip() else f"empty: {question}"',
    ],
)
def test_what_cannot_be_expressed_is_warned_about(tmp_path: Path, change: str) -> None:
    folder = broken(tmp_path, PLAN, change)
    with pytest.warns(UserWarning, match=r"build_math_planner_prompt\(\) returns a prompt") as seen:
        pack = import_prompts(folder, "sequential_scaled")
    assert len(seen) == 1
    assert "{{ question }}" in pack["planner"]["prompt"]


def test_a_forgotten_line_in_any_place_is_found(tmp_path: Path) -> None:
    """A builder that looks for its own line with regard to case."""
    change = 'return question + ("" if "Hurry, it\'s" in question else "\\nHurry, it\'s late.")'
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pack = import_prompts(broken(tmp_path, PLAN, change), "sequential_scaled")
    spec = AgentSpec(name="a", backbone="b", **pack["planner"])
    for question, end in (("Hurry, it's on", ""), ("hurry, it's on", "\nHurry, it's late.")):
        user = render_prompt(spec, {"question": question}).turns[1]
        assert user.content == question + end


# --- the command --------------------------------------------------------------------------------

app = typer.Typer()
app.command()(command)


def call(*arguments: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(item) for item in arguments])
    assert result.exit_code == code, f"{result.stdout}\n{result.stderr}\n{result.exception!r}"
    return result


def test_the_command_writes_a_pack(tmp_path: Path, clone: Path) -> None:
    for name in ("pack.json", "deep/pack.yaml"):
        result = call(clone, "--style", "mixture", "--task", "choice", "-o", tmp_path / name)
        assert result.stdout == f"{tmp_path / name}\n"
        assert "--prompts" in result.stderr
        pack = read_prompt_pack(tmp_path / name)
        assert pack == pack_of(clone, "mixture", "choice", False)
    call(clone, "--style", "mixture", "--task", "code", "--function", "-o", tmp_path / "f.yml")
    assert "fn_name" in (tmp_path / "f.yml").read_text()


def test_the_command_keeps_what_is_there(tmp_path: Path, clone: Path) -> None:
    path = tmp_path / "pack.yaml"
    path.write_text("mine")
    asked = (clone, "--style", "distillation", "-o", path)
    result = call(*asked, code=1)
    assert isinstance(result.exception, LatentMASError)
    assert "--force replaces" in str(result.exception)
    assert path.read_text() == "mine"
    call(*asked, "--force")
    assert set(read_prompt_pack(path)) == {"expert", "learner"}


def test_the_command_warns_on_stderr(tmp_path: Path) -> None:
    folder = broken(tmp_path, PLAN, 'return question + ("!" if "E) none" in question else "")')
    result = call(folder, "--style", "sequential_light", "-o", tmp_path / "pack.json")
    assert result.stdout == f"{tmp_path / 'pack.json'}\n"
    assert "warning: " in result.stderr
    assert "E) none" in result.stderr


def test_the_command_refuses_what_makes_no_sense(tmp_path: Path, clone: Path) -> None:
    good = (clone, "--style", "mixture", "-o", tmp_path / "pack.json")
    assert ".json, .yaml or .yml" in call(*good[:-1], tmp_path / "pack.txt", code=2).stderr
    assert "--task code" in call(*good, "--function", code=2).stderr
    assert "-o" in call(*good[:-2], code=2).stderr
    assert "--style" in call(clone, "-o", tmp_path / "pack.json", code=2).stderr
    assert isinstance(call(*good, "--task", "maths", code=1).exception, UnknownNameError)
    assert not list(tmp_path.iterdir())


def test_the_import_is_light() -> None:
    code = "import latentmas.cli.saved.interop, latentmas.interop.prompts\n"
    code += "import sys; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
