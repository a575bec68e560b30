"""Tools: programs run contained and say what they did; searches never make anything up."""

from __future__ import annotations

import importlib.util
import inspect
import json
import os
import subprocess
import sys
import typing
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from latentmas import tools
from latentmas.errors import LatentMASError, UnknownNameError
from latentmas.sandbox import run as _sandbox

ROOT = Path(__file__).parent.parent
KEY = "tvly-dev-0123456789abcdefABCDEF"


def _load_attacks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("attacks", ROOT / "benchmarks" / "sandbox.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["attacks"] = module  # dataclasses look there
    spec.loader.exec_module(module)
    return module


attacks = _load_attacks()


@pytest.fixture(params=_sandbox.KINDS)
def kind(request: pytest.FixtureRequest) -> _sandbox.Kind:
    """Each kind that works here."""
    if _sandbox.working(request.param) is None:
        pytest.skip(_sandbox.refusal(request.param))
    return request.param


@pytest.fixture
def run(kind):
    return tools.python_tool(kind=kind, seconds=300)


@pytest.fixture
def no_sandbox(monkeypatch):
    monkeypatch.setattr(_sandbox, "_problem", lambda kind: "not on this machine")


# --- the registry -----------------------------------------------------------------------------


def test_tools_are_named_after_their_files():
    assert tools.names() == ["python", "search"]
    assert tools.python is tools.get("python")
    assert tools.search is tools.get("search")
    with pytest.raises(UnknownNameError, match="did you mean 'python'"):
        tools.get("pyton")
    with pytest.raises(AttributeError, match="has no attribute 'shell'"):
        _ = tools.shell


def test_all_is_sorted_and_resolves():
    assert sorted(tools.__all__, key=str.lower) == tools.__all__
    for name in tools.__all__:
        assert getattr(tools, name) is not None


@pytest.mark.parametrize(
    "tool",
    [*map(tools.get, tools.names()), tools.python_tool(), tools.search_tool()],
    ids=lambda tool: f"{tool.__module__}.{tool.__name__}",
)
def test_a_tool_is_annotated_documented_and_returns_text(tool):
    hints = typing.get_type_hints(tool)
    assert set(hints) == {*inspect.signature(tool).parameters, "return"}
    assert hints["return"] is str
    doc = inspect.getdoc(tool)
    assert doc
    assert all(f"{name}:" in doc for name in inspect.signature(tool).parameters)


def test_tools_are_light():
    code = "import sys, latentmas.tools as t; t.python, t.search; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


# --- python: what a program says ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("print(6 * 7)", "42"),
        ("for n in range(3):\n    print(n)", "0\n1\n2"),
        ("", "[no output]"),
        ("print(math.gcd(12, 18), fractions.Fraction(2, 4), statistics.mean([1, 2]))", "6 1/2 1.5"),
        ("print(functools.reduce(int.__mul__, itertools.accumulate([1, 2, 3])))", "18"),
        ("print('ü', '数', '\\ud800')", "ü 数 \\ud800"),
        ("import sys; sys.stdout.buffer.write(b'a\\xffb')", "a\ufffdb"),
        ("import sys; print('no', file=sys.stderr)", "[stderr]\nno"),
        ("import sys; print(1); print(2, file=sys.stderr); sys.exit(3)",
         "1\n[stderr]\n2\n[exit code 3]"),
        ("import sys; sys.exit()", "[no output]"),
        ("import os; os.abort()", "[exit code 134]"),
        ("print(__name__, __import__('sys').argv)", "__main__ ['<program>']"),
        ("import sys; print(repr(sys.stdin.read()))", "''"),
        ("import os; print(os.listdir())", "[]"),
        ("open('a', 'w').write('kept'); print(open('a').read())", "kept"),
        ("import tempfile\nwith tempfile.TemporaryFile() as f: print(f.write(b'abc'))", "3"),
        ("import asyncio\nasync def f(): return 5\nprint(asyncio.run(f()))", "5"),
        ("import threading\nt = threading.Thread(target=print, args=(7,))\nt.start()", "7"),
        ("import os; os.kill(os.getpid(), 15)", "[exit code 143]"),
        ("import pickle\nclass P: pass\nprint(type(pickle.loads(pickle.dumps(P()))))",
         "<class '__main__.P'>"),
    ],
)  # fmt: skip
def test_a_program_says_what_it_printed(run, code, expected):
    assert run(code) == expected


def test_an_exception_is_a_traceback_of_the_program_alone(run):
    said = run("print('before')\ndef f():\n    return 1 / 0\nf()")
    assert said.startswith("before\n[stderr]\nTraceback (most recent call last):\n")
    assert "return 1 / 0" in said
    assert said.endswith("ZeroDivisionError: division by zero\n[exit code 1]")
    assert said.count("File ") == said.count('File "<program>"') == 2
    assert "SyntaxError" in run("print(")
    assert "SyntaxError" in run("print('\ud800')")


def test_every_standard_module_can_be_imported(run):
    names = "sqlite3 ssl decimal json hashlib zlib lzma bz2 ctypes datetime zoneinfo random heapq"
    assert run(f"import {names.replace(' ', ', ')}; print('all')") == "all"
    assert "ModuleNotFoundError" in run("import torch")


def test_output_is_cut_while_it_is_read(kind):
    run = tools.python_tool(kind=kind, output_chars=100, seconds=300)
    assert run("print('é' * 99)") == "é" * 99
    said = run("print('é' * 110)")
    assert said == "é" * 100 + "\n[output cut at 100 characters]"
    assert run("while True: print('x' * 1000)") == "x" * 100 + "\n[output cut at 100 characters]"
    said = run("print('x' * 300)\nraise ValueError('the last words')")
    assert "ValueError: the last words\n[exit code 1]\n[output cut" in said
    assert len(said) < 180


def test_limits_of_time_and_memory(kind):
    for seconds in (0.5, 2, 8, 32, 128):  # until there is time enough to print
        run = tools.python_tool(kind=kind, seconds=seconds, memory_bytes=128 * 2**20)
        said = run("print('early')\nwhile True: pass")
        if said.startswith("early"):
            break
    assert said == f"early\n[stopped: time limit of {seconds:g} s]"
    run = tools.python_tool(kind=kind, memory_bytes=128 * 2**20)
    said = run("x = 'x' * 2**28")
    assert said.endswith("MemoryError\n[stopped: memory limit of 128 MiB]")


@pytest.mark.parametrize("limit", [{"seconds": 0}, {"memory_bytes": 1}, {"output_chars": 0}])
def test_senseless_limits_are_refused(limit):
    with pytest.raises(LatentMASError, match=next(iter(limit))):
        tools.python_tool(**limit)


def test_an_unknown_kind_is_refused():
    with pytest.raises(LatentMASError, match="kind must be one of bubblewrap, landlock"):
        tools.python_tool(kind="chroot")  # type: ignore[arg-type]


def test_programs_run_side_by_side(run):
    with ThreadPoolExecutor(6) as pool:
        said = list(pool.map(lambda n: run(f"open('f', 'w').write('{n}'); print(open('f').read())"),
                             range(12)))  # fmt: skip
    assert said == [str(n) for n in range(12)]


def test_a_long_program_arrives_whole(run):
    assert run("x = '" + "y" * 300_000 + "'\nprint(len(x))") == "300000"


def test_nothing_stays_behind(run, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    run("import os\nos.makedirs('a/b/c'); open('a/b/f', 'w'); os.mkdir('locked', 0)\nos.chdir('a')")
    run("import os\nfor _ in range(900): os.mkdir('d'); os.chdir('d')")
    assert list(tmp_path.iterdir()) == []


# --- python: what a program cannot do -----------------------------------------------------------


@pytest.mark.parametrize("attack", attacks.ATTACKS, ids=lambda attack: attack.name)
def test_attacks_are_contained(attack, kind):
    seconds = 1.0
    tool = tools.python_tool(kind=kind, seconds=seconds)
    result = attacks.run_attack(attack, tool, seconds)
    assert result.outcome in ("refused", "contained"), result


@pytest.mark.parametrize("name", ["read /etc/passwd", "write outside the working directory"])
def test_the_judge_knows_an_escape(name, no_sandbox):
    attack = next(attack for attack in attacks.ATTACKS if attack.name == name)
    result = attacks.run_attack(attack, tools.python_tool(unsafe=True), 10)
    assert result.outcome == "ESCAPED"


def test_the_installed_packages_are_not_shown(run):
    site = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    assert "Error" in run(f"import os\nos.listdir({str(site)!r})")
    installation = Path(os.__file__).parent / "site-packages"
    if any(installation.glob("*/*.py")):
        file = next(installation.glob("*/*.py"))
        assert "Error" in run(f"open({str(file)!r})")


def test_the_environment_is_empty(run, monkeypatch):
    monkeypatch.setenv("LM_TEST_SECRET", "hush")
    said = run("import os; print(sorted(os.environ)); print(dict(os.environ))")
    assert "hush" not in said
    assert "LM_TEST_SECRET" not in said


# --- python: where there is no sandbox ----------------------------------------------------------


def test_without_a_sandbox_it_refuses_and_says_what_to_do(no_sandbox):
    assert tools.sandbox_kind() is None
    with pytest.raises(LatentMASError, match=r"not on this machine.*apt install bubblewrap"):
        tools.python("print(1)")
    with pytest.raises(LatentMASError, match="unsafe=True"):
        tools.python_tool(kind="landlock")("print(1)")


def test_it_runs_without_a_sandbox_on_request(no_sandbox):
    run = tools.python_tool(unsafe=True, seconds=300)
    assert run("print(1 + 1)") == "2"
    brief = tools.python_tool(unsafe=True, seconds=0.5)
    assert brief("while True: pass") == "[stopped: time limit of 0.5 s]"
    assert "HOME" in run("import os; print(sorted(os.environ))")


def test_a_sandbox_that_does_not_work_is_not_used(monkeypatch, tmp_path):
    broken = tmp_path / "bwrap"
    broken.write_text("#!/bin/sh\necho 'no permission for name spaces' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    _sandbox._try.cache_clear()
    try:
        assert tools.sandbox_kind() in ("landlock", None)
        assert "no permission for name spaces" in _sandbox.refusal("bubblewrap")
    finally:
        _sandbox._try.cache_clear()


def test_a_sandbox_that_does_not_hold_is_not_used(monkeypatch, tmp_path):
    leaky = tmp_path / "bwrap"
    leaky.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done\nshift\nexec "$@"\n')
    leaky.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    _sandbox._try.cache_clear()
    try:
        assert _sandbox.working("bubblewrap") is None
        assert "did not behave as it should: " in _sandbox.refusal("bubblewrap")
    finally:
        _sandbox._try.cache_clear()


# --- search -------------------------------------------------------------------------------------


class FakeClient:
    """Answers every query alike and remembers what it was asked."""

    api_key = KEY

    def __init__(self, answer: Any = None) -> None:
        self.answer, self.asked = answer, []

    def search(self, query: str, **options: Any) -> Any:
        self.asked.append((query, options))
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def page(n: int) -> dict[str, object]:
    return {"title": f"Title {n}", "url": f"https://example.org/{n}", "content": "some words " * 9}


def test_results_show_title_address_and_passage():
    client = FakeClient({"results": [page(1), page(2), page(3)]})
    said = tools.search_tool(client=client, max_results=2, snippet_chars=14)("  who\nis it ")
    assert said == (
        "1. Title 1\n   https://example.org/1\n   some words…\n"
        "2. Title 2\n   https://example.org/2\n   some words…"
    )
    assert client.asked == [("who is it", {"max_results": 2, "timeout": 30})]


def test_a_result_cannot_break_its_lines():
    odd = {"title": "a\n9. b\x1b[2J", "url": "https://e.org/\n", "content": None}
    said = tools.search_tool(client=FakeClient({"results": [odd]}))("q")
    assert said == "1. a 9. b [2J\n   https://e.org/"


def test_no_results_and_no_query():
    client = FakeClient({"results": []})
    assert tools.search_tool(client=client)("q") == "[no results]"
    assert tools.search_tool(client=client)("  ") == "[search failed: the query is empty]"
    assert len(client.asked) == 1


@pytest.mark.parametrize("answer", [None, {}, {"results": "x"}, {"results": [1]}])
def test_a_malformed_answer_is_a_failure(answer):
    said = tools.search_tool(client=FakeClient(answer))("q")
    assert said == "[search failed: the service did not return a list of results]"


def test_a_failure_is_one_line_without_the_key(monkeypatch):
    monkeypatch.setenv("TAVILY_API_KEY", "another-secret-key-1234")
    error = ConnectionError(f"Bearer {KEY}\nanother-secret-key-1234 tvly-third-one " + "x" * 500)
    said = tools.search_tool(client=FakeClient(error))("q")
    assert said.startswith("[search failed: ConnectionError: Bearer *** *** ***")
    assert "\n" not in said
    assert len(said) < 250


def test_results_are_kept_without_the_key(tmp_path, monkeypatch):
    monkeypatch.delenv("TAVILY_API_KEY", raising=False)
    client = FakeClient({"results": [page(1)], "api_key": KEY})
    first = tools.search_tool(client=client, cache_dir=tmp_path / "new")("q")
    kept = list((tmp_path / "new").iterdir())
    assert [path.suffix for path in kept] == [".json"]
    assert KEY not in kept[0].read_text()
    assert json.loads(kept[0].read_text())["query"] == "q"
    assert tools.search_tool(cache_dir=tmp_path / "new")("q") == first  # neither key nor client
    kept[0].write_text("{damaged")
    assert tools.search_tool(client=client, cache_dir=tmp_path / "new")("q") == first
    assert len(client.asked) == 2
    tools.search_tool(client=client, cache_dir=tmp_path / "new", max_results=1)("q")
    assert len(client.asked) == 3


def test_failures_are_not_kept(tmp_path):
    tools.search_tool(client=FakeClient(OSError("down")), cache_dir=tmp_path)("q")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", [None, "", "   "])
def test_a_missing_key_is_an_error(key, monkeypatch):
    monkeypatch.delenv("TAVILY_API_KEY", raising=False)
    if key is not None:
        monkeypatch.setenv("TAVILY_API_KEY", key)
    with pytest.raises(LatentMASError, match=r"needs a key; get a key at .*TAVILY_API_KEY"):
        tools.search("q")


@pytest.mark.parametrize("key", ["tvly-YOUR_API_KEY", "<your key here>", "tvly-xxxxxxxxxxxx", "a"])
def test_a_placeholder_is_not_a_key(key, monkeypatch):
    monkeypatch.setenv("TAVILY_API_KEY", key)
    with pytest.raises(LatentMASError, match="holds a placeholder, not a key"):
        tools.search("q")


def test_a_missing_package_is_an_error(monkeypatch):
    monkeypatch.setenv("TAVILY_API_KEY", KEY)
    monkeypatch.setitem(sys.modules, "tavily", None)
    with pytest.raises(LatentMASError, match=r"pip install 'latentmas\[search\]'"):
        tools.search("q")


def test_tavily_is_given_the_key(monkeypatch):
    made = []

    class TavilyClient(FakeClient):
        def __init__(self, api_key: str) -> None:
            super().__init__({"results": [page(1)]})
            made.append(api_key)

    module = ModuleType("tavily")
    monkeypatch.setattr(module, "TavilyClient", TavilyClient, raising=False)
    monkeypatch.setitem(sys.modules, "tavily", module)
    monkeypatch.setenv("TAVILY_API_KEY", KEY)
    assert tools.search("q").startswith("1. Title 1\n")
    assert made == [KEY]


@pytest.mark.parametrize("option", [{"max_results": 0}, {"max_results": 21}, {"snippet_chars": 0}])
def test_senseless_options_are_refused(option):
    with pytest.raises(LatentMASError, match=next(iter(option))):
        tools.search_tool(**option)
