"""The sandbox from the host's side: what it removes, counts, bounds and lets in."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from latentmas import tools
from latentmas.errors import LatentMASError
from latentmas.sandbox import disk as _disk
from latentmas.sandbox import folder as _folder
from latentmas.sandbox import packages as _packages
from latentmas.sandbox import run as _sandbox
from latentmas.sandbox import supervise as _supervise
from latentmas.sandbox import threads as _threads
from latentmas.sandbox.limits import MEBIBYTE, Limits
from tests.test_tools import attacks

linux = pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")


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
def asked():
    """Skip where the kernel does not ask before each thread."""
    if not any(_sandbox._trial(kind)[1] for kind in _sandbox.KINDS):
        pytest.skip("the kernel is older than 5.5, or a filter around this process answers")


@pytest.fixture
def outside(tmp_path):
    """A folder that nobody may touch, with something in it."""
    folder = tmp_path / "outside"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "file").write_text("kept")
    folder.chmod(0o750)
    return folder


def untouched(folder: Path) -> bool:
    return (folder / "below" / "file").is_file() and folder.stat().st_mode & 0o777 == 0o750


# --- what is removed --------------------------------------------------------------------------


def test_the_race_against_the_removal_is_lost(kind):
    result = attacks.run_race(tools.python_tool(kind=kind, seconds=attacks.RACE_SECONDS), 3)
    assert result.outcome == "contained", result


@pytest.mark.parametrize("moment", ["_unlock", "open_folder", "_names"])
def test_removal_follows_no_link_that_takes_a_directorys_place(monkeypatch, outside, moment):
    """The exchange that an attacker hopes for, at each step of the removal."""
    real = getattr(_folder, moment)
    exchanged = []

    def exchange(*arguments):
        directory = made / "directory"
        if directory.is_dir() and not directory.is_symlink():
            directory.rename(made / "away")
            directory.symlink_to(outside)
            exchanged.append(moment)
        return real(*arguments)

    with _folder.work_folder() as folder:
        made = folder.path
        (made / "directory" / "inner").mkdir(parents=True)
        monkeypatch.setattr(_folder, moment, exchange)
    assert exchanged
    assert untouched(outside)
    monkeypatch.undo()
    subprocess.run(["rm", "-rf", str(made)], check=True)


def test_links_themselves_are_removed(outside):
    with _folder.work_folder() as folder:
        (folder.path / "link").symlink_to(outside)
        (folder.path / "d" / "e").mkdir(parents=True)
        (folder.path / "d" / "link").symlink_to(outside)
        (folder.path / "d" / "e" / "link").symlink_to(outside / "below" / "file")
    assert not folder.path.exists()
    assert untouched(outside)


def test_deep_and_locked_directories_are_removed():
    with _folder.work_folder() as folder:
        fd = os.dup(folder.fd)
        for _ in range(60):  # deeper than a path can be long
            os.mkdir("d" * 200, dir_fd=fd)
            inner = _folder.open_folder("d" * 200, fd)
            os.close(fd)
            fd = inner
        os.close(fd)
        (folder.path / "locked" / "inner").mkdir(parents=True)
        (folder.path / "locked" / "inner").chmod(0)
        (folder.path / "locked").chmod(0)
    assert not folder.path.exists()


def test_what_cannot_be_removed_is_told(monkeypatch, caplog):
    monkeypatch.setattr(_folder, "_PATIENCE", -1.0)
    with _folder.work_folder() as folder:
        (folder.path / "file").touch()
    assert f"could not remove the working directory {folder.path}" in caplog.text
    subprocess.run(["rm", "-rf", str(folder.path)], check=True)


def test_bubblewrap_leaves_the_disk_of_the_host_alone(monkeypatch):
    if _sandbox.working("bubblewrap") is None:
        pytest.skip(_sandbox.refusal("bubblewrap"))
    monkeypatch.setattr(_sandbox, "work_folder", lambda: pytest.fail("a folder was made"))
    said = tools.python_tool(kind="bubblewrap")(
        "import os; open('f', 'w').write('x'); print(os.listdir(), os.statvfs('.').f_blocks)"
    )
    assert said == f"['f'] {64 * MEBIBYTE // os.sysconf('SC_PAGE_SIZE')}"


@linux
def test_no_process_is_left_when_the_tool_returns(kind):
    run = tools.python_tool(kind=kind, seconds=0.7)
    name = f"lm{os.getpid()}"
    for _ in range(5):
        said = run(f"import ctypes\nctypes.CDLL(None).prctl(15, b'{name}')\nwhile True: pass")
        assert said == "[stopped: time limit of 0.7 s]"
        found = []
        for path in Path("/proc").glob("[0-9]*/comm"):
            try:
                found.append(path.read_text().strip())
            except OSError:
                continue
        assert name not in found


# --- what is counted --------------------------------------------------------------------------


@pytest.fixture
def holder(tmp_path):
    """Start a child that runs a program in a folder and then waits."""
    children = []

    def start(code: str) -> subprocess.Popen[str]:
        program = f"import mmap, os\nkept = []\n{code}\nprint('ready', flush=True)\ninput()"
        child = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=tmp_path,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        children.append(child)
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        return child

    yield start
    for child in children:
        child.kill()
        child.communicate()


def is_too_large(folder: Path, child: subprocess.Popen[str], **limits: int) -> bool:
    fd = os.open(folder, os.O_RDONLY)
    try:
        return _disk.is_too_large(fd, child.pid, Limits(**limits))
    finally:
        os.close(fd)


@linux
@pytest.mark.parametrize(
    "keep",
    [
        "open(name, 'wb')",
        "open(name, 'wb')); kept.append(kept[-1]",
        "mmap.mmap(os.open(name, os.O_RDWR), 4096)); os.closerange(3, 99",
    ],
    ids=["open", "open twice", "mapped"],
)
def test_deleted_files_count_while_they_are_held(holder, tmp_path, keep):
    child = holder(
        "for n in range(3):\n    name = f'f{n}'\n    open(name, 'wb').write(bytes(2**20))\n"
        f"    kept.append({keep})\n"
        "    if type(kept[-1]) is not mmap.mmap: kept[-1].write(bytes(2**20))\n"
        "    os.unlink(name)\n[file.flush() for file in kept]"
    )
    assert list(tmp_path.iterdir()) == []
    sizes = {"file_bytes": 2**20}
    assert is_too_large(tmp_path, child, folder_bytes=2 * 2**20, **sizes)
    assert not is_too_large(tmp_path, child, folder_bytes=4 * 2**20, **sizes)


@linux
def test_sparse_files_count_by_their_blocks(holder, tmp_path):
    child = holder("open('f', 'wb').truncate(2**34)")
    assert not is_too_large(tmp_path, child)


@linux
def test_nesting_is_bounded(holder, tmp_path):
    child = holder("os.makedirs('/'.join('d' * 10))")
    assert not is_too_large(tmp_path, child, folder_depth=10)
    assert is_too_large(tmp_path, child, folder_depth=9)


@linux
def test_a_process_that_renames_all_the_time_is_halted_to_be_counted(holder, tmp_path, monkeypatch):
    child = holder("open('f', 'wb').write(bytes(2**20))")
    monkeypatch.setattr(_disk.os, "scandir", renaming(os.scandir, tmp_path, times=1))
    states = []
    real = _disk._state
    monkeypatch.setattr(_disk, "_state", lambda pid: states.append(real(pid)) or states[-1])
    assert is_too_large(tmp_path, child, folder_bytes=2**19)
    assert states == ["rests"]
    monkeypatch.undo()
    assert not is_too_large(tmp_path, child, folder_bytes=2**21)
    assert child.poll() is None


def renaming(scandir, folder, *, times):
    """As if the file were renamed between being listed and being looked at."""
    left = [times]

    class Renamed:
        def __init__(self, fd):
            self.fd = fd

        def __enter__(self):
            with scandir(self.fd) as found:
                entries = list(found)
            if left[0] > 0:
                left[0] -= 1
                (folder / "f").rename(folder / "g")
            return iter(entries)

        def __exit__(self, *_):
            return None

    return Renamed


@linux
def test_an_ended_process_holds_nothing(holder, tmp_path):
    child = holder("kept.append(open('f', 'wb')); os.unlink('f')")
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not is_too_large(tmp_path, child)


# --- threads ----------------------------------------------------------------------------------

COUNT = """
import threading, time
threading.stack_size(2**16)
count = 1
try:
    while count < 300:
        threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
        count += 1
except RuntimeError as error:
    print(count, error, flush=True)
import os; os._exit(0)
"""


def test_threads_beyond_the_bound_are_refused(run, asked):
    assert run(COUNT) == "64 can't start new thread"


def test_threads_that_end_make_room(run, asked):
    code = "import threading\nfor _ in range(200):\n    t = threading.Thread(target=int)\n"
    assert run(code + "    t.start(); t.join()\nprint('all')") == "all"


def test_threads_are_counted_where_the_kernel_does_not_ask(monkeypatch, run):
    monkeypatch.setattr(_sandbox, "can_ask", lambda: False)
    assert run(COUNT.replace("os._exit(0)", "time.sleep(20)")) == "[stopped: limit of 64 threads]"


@pytest.mark.parametrize("asked", [True, False])
def test_how_strict_each_bound_is_and_why_is_told(monkeypatch, kind, asked):
    monkeypatch.setattr(_sandbox, "sandbox_kind", lambda: kind)
    monkeypatch.setattr(_sandbox, "_trial", lambda kind: (None, asked))
    facts = _sandbox.sandbox_facts()
    assert facts["kind"] == kind
    assert ("refused" in facts["disk"]) == (kind == "bubblewrap")
    assert ("the disk of the host" in facts["disk"]) == (kind == "landlock")
    assert "checked 50 times a second, because" in facts["files"]
    if asked:
        assert facts["threads"] == "64, refused beyond that"
        return
    assert "stopped beyond that" in facts["threads"]
    assert "another filter" in facts["threads"]
    monkeypatch.setattr(_sandbox, "can_ask", lambda: False)
    assert "older than Linux 5.5" in _sandbox.sandbox_facts()["threads"]


def test_why_there_is_no_sandbox_is_told(monkeypatch):
    monkeypatch.setattr(_sandbox, "_problem", lambda kind: "forbidden")
    said = tools.sandbox_facts()
    assert said == {"kind": "none (bubblewrap: forbidden; landlock: forbidden)"}


@pytest.mark.parametrize(
    ("release", "expected"), [("5.4.0-200-generic", False), ("5.5.1", True), ("6.18.44+", True)]
)
def test_old_kernels_are_not_asked_to_ask(monkeypatch, release, expected):
    monkeypatch.setattr(sys, "platform", "linux")
    facts = os.uname_result(("Linux", "here", release, "", "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: facts)
    assert _threads.can_ask() is expected


def test_bubblewraps_message_may_come_in_pieces(monkeypatch):
    opened = []
    monkeypatch.setattr(_supervise.os, "pidfd_open", lambda pid: opened.append(pid) or os.dup(0))
    with _supervise.supervise(Limits(), None) as supervisor:
        selector = _supervise.selectors.DefaultSelector()
        supervisor.attach(selector)
        for piece in (b'{\n    "child-', b'pid": 41', b"7,\n"):
            os.write(supervisor.info, piece)
            for key, _ in selector.select(1):
                key.data(key.fd)
        selector.close()
    assert opened == [417]


# --- packages ---------------------------------------------------------------------------------


def test_packages_can_be_imported_and_nothing_else(kind):
    run = tools.python_tool(kind=kind, seconds=300, packages=["numpy", "sympy"])
    said = run(
        "import importlib.metadata, mpmath, numpy as np, sympy as sp\n"
        "print(np.linalg.solve(np.eye(3) * 2, np.ones(3)).sum())\n"
        "print(sp.factor(sp.Symbol('x')**2 - 1))\n"
        "print(importlib.metadata.version('numpy') == np.__version__)\n"
        "for name in ('pydantic', 'torch', 'latentmas'):\n"
        "    try: __import__(name)\n    except ImportError as error: print(error)\n"
        "try: open(np.__file__, 'a')\nexcept OSError as error: print('read-only')"
    )
    absent = "".join(f"No module named '{name}'\n" for name in ("pydantic", "torch", "latentmas"))
    assert said == f"1.5\n(x - 1)*(x + 1)\nTrue\n{absent}read-only"


def test_without_the_option_there_are_no_packages(run):
    assert "No module named 'numpy'" in run("import numpy")


def test_the_model_is_told_about_packages():
    doc = tools.python_tool(packages=["numpy"]).__doc__
    assert "Of the installed packages, these can be imported: numpy." in doc
    assert "installed" not in tools.python_tool().__doc__


def test_a_missing_package_is_an_error_with_the_way_to_get_it():
    with pytest.raises(LatentMASError, match=r"'no-such-thing'.*pip install no-such-thing"):
        tools.python_tool(packages=["numpy", "no-such-thing"])
    with pytest.raises(LatentMASError, match=r"list of names, such as \['numpy'\]"):
        tools.python_tool(packages="numpy")


def test_an_editable_package_is_an_error(monkeypatch, tmp_path):
    info = tmp_path / "mine-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (info / "RECORD").write_text("mine-1.dist-info/METADATA,,\n__editable__.mine.pth,,\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LatentMASError, match=r"'mine'.*lists no module.*editable mode"):
        tools.python_tool(packages=["mine"])


@pytest.mark.parametrize("layout", ["file", "package", "folder"])
def test_every_layout_of_a_package_can_be_imported(kind, monkeypatch, tmp_path, layout):
    files = {"file": "mine.py", "package": "mine/__init__.py", "folder": "mine/part.py"}
    module = "mine.part" if layout == "folder" else "mine"
    (tmp_path / files[layout]).parent.mkdir(exist_ok=True)
    (tmp_path / files[layout]).write_text("word = 'found'\n")
    info = tmp_path / "mine-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mine\nVersion: 1\n")
    (info / "RECORD").write_text(f"mine-1.dist-info/METADATA,,\n{files[layout]},,\n")
    monkeypatch.syspath_prepend(tmp_path)
    _packages.find_packages.cache_clear()
    try:
        run = tools.python_tool(kind=kind, seconds=300, packages=["mine"])
        assert run(f"import {module} as m; print(m.word)") == "found"
    finally:
        _packages.find_packages.cache_clear()


def test_a_program_must_be_text():
    with pytest.raises(LatentMASError, match="takes the source of a program, not None"):
        tools.python(None)


def test_a_call_is_quick(run):
    run("pass")
    start = time.perf_counter()
    run("print(1)")
    assert time.perf_counter() - start < 60
