"""What other libraries raise on damaged input ends in this package's own errors."""

from __future__ import annotations

import os
import pickle
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

import latentmas as lm
from latentmas import tools
from latentmas.io import diff_teams, digest_rows, inspect_team
from tests.teams import sequential, tiny

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def system() -> lm.System:
    return sequential(rounds=1).compile().load(seed=1)


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("content", [pickle.dumps({"a": os.system}), b"", b"no pickle"])
def test_weights_that_are_a_bare_pickle(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny("llama", 16).source, folder)
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(content)
    graph = lm.Graph("one", inputs=["question"])
    graph.add_agent("solver", lm.Backbone(str(folder)), prompt="{{ question }}")
    plan = graph.output("solver").compile()
    with pytest.raises(lm.WeightsError, match="use a copy in safetensors format") as caught:
        plan.load()
    assert "weights_only" not in str(caught.value), "torch advises to run the file's code"


@pytest.mark.parametrize("name", ["latentmas.json", "prompts/planner.jinja"])
@pytest.mark.parametrize("read", [lm.System.from_pretrained, inspect_team, "diff"])
def test_a_part_that_is_a_link_to_itself(
    system: lm.System, tmp_path: Path, name: str, read: Any
) -> None:
    folder = system.save_pretrained(tmp_path / "team")
    (folder / name).unlink()
    (folder / name).symlink_to(Path(name).name)
    if read is inspect_team and name != "latentmas.json":
        assert inspect_team(folder).name == "sequential"  # it reads no prompts
        return
    with pytest.raises(lm.WeightsError, match=r"LM502 .* its symbolic links form a loop"):
        diff_teams(folder, folder) if read == "diff" else read(folder)


def test_a_folder_that_is_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "team").symlink_to("team")
    with pytest.raises(lm.WeightsError, match=r"LM502 .* its symbolic links form a loop"):
        lm.System.from_pretrained(tmp_path / "team")


def test_a_prompt_file_that_is_a_link_to_itself(tmp_path: Path) -> None:
    (tmp_path / "p.jinja").symlink_to("p.jinja")
    graph = "name: x\nagents: [{name: a, backbone: b, prompt_file: p.jinja}]\n"
    (tmp_path / "x.yaml").write_text(graph)
    with pytest.raises(lm.GraphError, match="its symbolic links form a loop"):
        lm.Graph.load(tmp_path / "x.yaml")


def test_a_sample_that_holds_itself(system: lm.System, tmp_path: Path) -> None:
    nested: list[Any] = []
    nested.append(nested)
    with pytest.raises(lm.DataError, match=r"the value \[\[\.\.\.\]\] holds itself"):
        system.run([{"question": nested}])
    sample: dict[str, Any] = {"question": "3 + 4?"}
    sample["more"] = sample
    with pytest.raises(lm.DataError, match="row 0 cannot be converted to JSON: Circular reference"):
        system.run([sample], manifest=tmp_path / "run.json")
    with pytest.raises(lm.DataError, match="row 1 cannot be converted to JSON"):
        digest_rows([{"a": 1}, {"a": 1, 2: 3}])


@pytest.mark.parametrize("given", [None, 3, b"print(1)", ["print(1)"]])
def test_tools_take_text(given: Any) -> None:
    with pytest.raises(lm.DataError, match="the tool 'python' takes the source of a program, not"):
        tools.python(given)
    with pytest.raises(lm.DataError, match="the tool 'search' takes the text of a query, not"):
        tools.search(given)


LIMITED = """
    import gc, resource, sys
    from pathlib import Path
    import latentmas as lm

    team, own = Path(sys.argv[1]), 0
    lm.System.from_pretrained(team)
    for extra in range(0, 60, 6):
        gc.collect()
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (used + extra * 2**20, before[1]))
        try:
            lm.System.from_pretrained(team)
        except lm.LatentMASError as error:
            own += "emory" in str(error)
        resource.setrlimit(resource.RLIMIT_AS, before)
    print(own)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads Linux's /proc")
def test_too_little_memory_to_load(tmp_path: Path) -> None:
    """As under `ulimit -v`: every failure is a `LatentMASError` that speaks of memory."""
    wide = tiny("llama", 512)
    graph = lm.templates.sequential(planner=wide, critic=wide, solver=wide, latent_steps=1)
    folder = graph.compile().load().save_pretrained(tmp_path / "team")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(LIMITED), str(folder)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2
