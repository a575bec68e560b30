"""Files that cannot be written: what is said, and that the old ones stay."""

from __future__ import annotations

import errno
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import latentmas as lm
from latentmas.atomic import WriteError, check_writable, write_atomically, write_error
from tests.teams import sequential

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def system() -> lm.System:
    return sequential().compile().load(seed=1)


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """Writing more fails with EFBIG, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.EACCES, "Permission denied; choose a folder that you may write to, or change"),
        (errno.EPERM, "Operation not permitted; choose a folder that you may write to"),
        (errno.EROFS, "Read-only file system; the file system is read-only; choose another"),
        (errno.ENOSPC, "No space left on device; free some space, or choose another disk"),
        (errno.EIO, "Input/output error; choose another path"),
    ],
)
def test_the_message_names_path_reason_and_fix(code: int, words: str) -> None:
    found = write_error("out/plan.json", OSError(code, os.strerror(code)))
    assert str(found).startswith(f"cannot write 'out/plan.json': {words}")
    assert (found.errno, found.filename) == (code, "out/plan.json")
    assert isinstance(found, lm.DataError) and isinstance(found, OSError)
    assert str(pickle.loads(pickle.dumps(found))) == str(found)


def test_a_file_that_becomes_too_large_leaves_the_old_one(tmp_path: Path) -> None:
    path = write_atomically(tmp_path / "plan.json", "old")
    with files_of_at_most(100), pytest.raises(lm.DataError, match="File too large; the limit"):
        write_atomically(path, "new" * 100)
    assert path.read_text() == "old" and names(tmp_path) == ["plan.json"]


def test_a_full_disk_leaves_the_old_team(system: lm.System, tmp_path: Path) -> None:
    folder = system.save_pretrained(tmp_path / "team")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with (
        files_of_at_most(16_384),
        pytest.raises(lm.DataError, match=r"the team cannot be written to .*: File too large"),
    ):
        system.save_pretrained(folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_a_full_disk_leaves_the_old_file_of_links(system: lm.System, tmp_path: Path) -> None:
    path = system.save_links(tmp_path / "links.safetensors")
    before = path.read_bytes()
    with files_of_at_most(16_384), pytest.raises(lm.DataError, match="File too large"):
        system.save_links(path)
    assert path.read_bytes() == before and names(tmp_path) == ["links.safetensors"]


@pytest.mark.skipif(sys.platform == "win32", reason="paths of Unix")
@pytest.mark.parametrize(
    "arguments",
    [
        ["new", "team", "--output", "{}"],
        ["draw", "sequential_light", "-o", "{}/team.svg"],
        ["plan", "sequential_light", "-o", "{}/plan.json"],
    ],
)
def test_commands_name_what_cannot_be_written(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "file").write_text("")
    home = tmp_path / "file" / "sub"
    done = _run([argument.format(home) for argument in arguments])
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: cannot write '{home}"), done.stderr
    assert "Not a directory; part of the path is a file" in done.stderr


def _run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "latentmas", *arguments],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )


def test_a_training_does_not_begin_where_its_team_cannot_be_saved(tmp_path: Path) -> None:
    _run(["new", "team", "--output", str(tmp_path)])
    (tmp_path / "data.jsonl").write_text('{"question": "3 + 4?", "answer": "7"}\n')
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "out"
    team, data = str(tmp_path / "team.yaml"), str(tmp_path / "data.jsonl")
    done = _run(
        ["train", "outer", team, "--data", data, "--output-dir", str(out), "--answer-field", "x"]
    )
    assert done.returncode == 1
    assert f"error: cannot write '{out}" in done.stderr, done.stderr
    assert "untrained" not in done.stderr, "no model was loaded before"


ROWS = [{"question": "3 + 4?", "answer": "7"}]


def trainer(system: lm.System, folder: Path) -> lm.OuterTrainer:
    return lm.OuterTrainer(
        system,
        lm.OuterConfig(
            output_dir=str(folder), max_steps=1, use_cpu=True, save_strategy="steps", save_steps=1
        ),
        train_dataset=ROWS,
    )


def test_a_checkpoint_that_does_not_fit_says_so(system: lm.System, tmp_path: Path) -> None:
    """The links fit, and the optimizer's state does not: torch speaks of an `iostream error`."""
    links = system.save_links(tmp_path / "links.safetensors").stat().st_size
    limit = int(1.2 * links)
    words = r"cannot write a checkpoint to '.*out': torch could not save its file"
    with files_of_at_most(limit), pytest.raises(lm.DataError, match=words):
        trainer(system, tmp_path / "out").train()
    with pytest.raises(lm.DataError, match=r"cannot resume: .* was cut short"):
        trainer(system, tmp_path / "out").train(resume_from_checkpoint=True)


def test_a_training_in_python_does_not_begin_where_nothing_can_be_written(
    system: lm.System, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(lm.DataError, match=r"cannot write '.*out/metrics.jsonl': Not a directory"):
        trainer(system, tmp_path / "file" / "out")


def test_looking_ahead_leaves_nothing(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "plan.json")
    assert names(tmp_path) == []
    with pytest.raises(WriteError, match="Is a directory; it is a folder; name a file"):
        check_writable(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes here")
def test_a_pipe_takes_what_is_written_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_writable(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_atomically(pipe, "all of it")
        assert os.read(reader, 100) == b"all of it"
    finally:
        os.close(reader)
    assert pipe.is_fifo()
    assert list(tmp_path.iterdir()) == [pipe]


def test_a_link_to_a_pipe_is_replaced_not_followed(tmp_path: Path) -> None:
    """It may lie in a folder that somebody else made."""
    if not hasattr(os, "mkfifo"):
        pytest.skip("there are no named pipes here")
    os.mkfifo(tmp_path / "pipe")
    link = tmp_path / "team.json"
    link.symlink_to(tmp_path / "pipe")
    write_atomically(link, "all of it")
    assert not link.is_symlink()
    assert link.read_text() == "all of it"
