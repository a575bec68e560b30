"""`latentmas serve`: SIGTERM loses nothing that was accepted, and what comes later is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import latentmas as lm
from latentmas.cli.app import app
from tests.served import pair, until
from tests.teams import load64

COUNT, TOKENS, KEY = 20, 12, "the-secret-key"


@pytest.fixture(scope="module")
def team(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("team")
    load64(pair()).save_pretrained(folder / "team")
    return folder / "team"


HELD = """
import sys, time
from pathlib import Path
from latentmas.cli import main
from latentmas.generation import GenerationBatch
from latentmas.serve import Engine
advance, submit, folder = GenerationBatch.advance, Engine.submit, Path(sys.argv.pop(1))
def held(self):
    while not (folder / "go").exists():
        time.sleep(0.01)
    advance(self)
def noted(self, asked, **options):
    inbox = submit(self, asked, **options)
    with (folder / "accepted").open("a") as file:
        file.write("x")
    return inbox
GenerationBatch.advance, Engine.submit = held, noted
main()
"""


@contextmanager
def command(team: Path, folder: Path) -> Iterator[tuple[Any, str, list[str]]]:
    """The command in a process of its own: process, URL and lines of stderr.

    It notes each request that it accepts in the file `accepted` of the folder, and writes no token
    before the file `go` is there.
    """
    words = [sys.executable, "-c", HELD, str(folder), "serve", str(team), "--port", "0"]
    process = subprocess.Popen(
        [*words, "--max-rows", "8"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LATENTMAS_API_KEY": KEY},
    )
    said = list[str]()
    reader = threading.Thread(target=lambda: said.extend(process.stderr))
    reader.start()
    try:
        until(lambda: process.poll() is not None or any("serving" in line for line in said))
        found = re.search(r"http://\S+", "".join(line for line in said if "serving" in line))
        yield process, "" if found is None else found[0].rstrip(";"), said
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()
        process.stderr.close()


def ask(url: str, question: int, key: str = KEY) -> tuple[int, str]:
    """Status and text of an answer."""
    body = {"model": "pair", "messages": [{"role": "user", "content": f"question {question}"}]}
    body |= {"repetition_penalty": 1.5, "max_tokens": TOKENS}
    headers = {"content-type": "application/json", "authorization": f"Bearer {key}"}
    request = urllib.request.Request(f"{url}/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=600) as response:
            return response.status, json.load(response)["choices"][0]["message"]["content"]
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)["error"]["code"]


def health(url: str) -> int:
    """Status of the server's health."""
    try:
        with urllib.request.urlopen(url.removesuffix("/v1") + "/health", timeout=600) as response:
            return response.status
    except urllib.error.HTTPError as error:
        with error:
            return error.code


def test_sigterm_loses_nothing_that_was_accepted(team: Path, tmp_path: Path) -> None:
    with command(team, tmp_path) as (process, url, said), ThreadPoolExecutor(COUNT) as pool:
        assert ask(url, 1, key="another") == (401, "invalid_api_key")
        answers = [pool.submit(ask, url, i) for i in range(COUNT)]
        until(lambda: (tmp_path / "accepted").exists())
        until(lambda: (tmp_path / "accepted").stat().st_size == COUNT)
        process.send_signal(signal.SIGTERM)
        until(lambda: health(url) == 503)
        assert ask(url, 99) == (503, "shutting_down")
        (tmp_path / "go").touch()
        found = [answer.result() for answer in answers]
        assert process.wait(600) == 0
        assert process.stdout.read() == ""
        assert KEY not in "".join(said)
    system = lm.System.from_pretrained(team)
    for i, answer in enumerate(found):
        run = system.run([f"question {i}"], repetition_penalty=1.5, max_new_tokens=TOKENS)
        assert answer == (200, run.text)


def test_the_command_takes_its_address_first(team: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("the team was loaded first")

    monkeypatch.setattr("latentmas.cli.serving.serve.open_team", never)
    done = CliRunner().invoke(app, ["serve", str(team), "--host", "192.0.2.1"])
    assert done.exit_code == 1
    assert "cannot listen on 192.0.2.1:8000" in done.output


@pytest.mark.parametrize(
    ("words", "warns", "hosts"),
    [
        ("", False, ("localhost", "127.0.0.1", "[::1]")),
        ("--allowed-host a.example", False, ("a.example",)),
        ("--host 0.0.0.0", True, ()),
        ("--host 0.0.0.0 --api-key secret-of-mine", False, ()),
    ],
)
def test_who_may_connect(
    monkeypatch: pytest.MonkeyPatch, words: str, warns: bool, hosts: tuple[str, ...]
) -> None:
    system, found = load64(pair()), list[Any]()
    monkeypatch.setattr("latentmas.cli.serving.serve.open_team", lambda *_, **__: system)
    monkeypatch.setattr("latentmas.serve.run_server", lambda app, **_: found.append(app))
    done = CliRunner().invoke(app, ["serve", "team", "--port", "0", *words.split()])
    assert done.exit_code == 0, done.output
    assert ("can be reached from other machines" in done.output) is warns
    assert found[0].state.engine.settings.allowed_hosts == hosts
