"""One backbone over several processes, groups of such processes, and layers on several devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

import latentmas as lm
from latentmas.testing import tiny_backbone
from tests.parallel_work import ROWS, team, train
from tests.processes import run_processes

SMALL = tiny_backbone("qwen3", 16)


@pytest.mark.parametrize("link", ["recursive", "soft_token"])
def test_two_processes_hold_one_backbone(link: str) -> None:
    first, second = run_processes(2, "split_and_whole", SMALL.source, link)
    assert first == second
    assert first.pop("part") == [[16, 16], [32, 16]]
    assert first.pop("trained") >= 9
    for name, difference in first.items():
        assert difference <= (1e-9 if "float64" in name else 1e-5), (name, difference)


def test_processes_of_a_group_that_differ_are_told_so() -> None:
    first, second = run_processes(2, "different_calls", SMALL.source)
    assert first == second
    for name in ("rows", "options"):
        assert f"were given different {name}" in first[name]
        assert "ranks 0 to 1" in first[name] and "system.mesh.share(rows)" in first[name]
    assert "different team" in first["teams"] and "different data" in first["training"]
    for name in ("move", "offload", "static"):
        assert "split over 2 processes" in first[name], first[name]
    assert first["after"].startswith("[[")


def test_groups_of_processes_train_the_links_of_one(tmp_path: Path) -> None:
    """Two groups of two processes, one row each; and one process with two rows."""
    four = run_processes(4, "train", SMALL.source, str(tmp_path / "four"), 2, 1)
    places = [[0, 0, True], [0, 1, False], [1, 0, True], [1, 1, False]]
    assert [one.pop("place") for one in four] == places
    assert all(one == four[0] for one in four), "links differ in a bit, or results are not gathered"
    one = train(SMALL.source, str(tmp_path / "one"), 1, 2)
    assert four[0]["loss"] == pytest.approx(one["loss"], rel=1e-5)
    assert four[0]["eval"] == pytest.approx(one["eval"], rel=1e-5)
    links = [load_file(tmp_path / name / "team" / "links.safetensors") for name in ("one", "four")]
    begun = team(SMALL.source).load().link_state()
    moved = max(float((links[0][name] - begun[name]).abs().max()) for name in begun)
    apart = max(float((links[0][name] - links[1][name]).abs().max()) for name in begun)
    assert apart < 1e-5 < 1e-3 < moved  # fp32; two steps of AdamW at 1e-3
    system = lm.System.from_pretrained(tmp_path / "four" / "team")
    whole = system.run([row["question"] for row in ROWS], max_new_tokens=3)
    assert four[0]["ids"] == whole.token_ids


def refused(**options: Any) -> str:
    """The message with which a team is not loaded."""
    source = options.pop("source", SMALL)
    with pytest.raises(lm.LatentMASError) as error:
        team(source.source).load(**options)
    return str(error.value)


def test_what_cannot_be_split_is_refused_before_weights_load() -> None:
    odd = tiny_backbone("llama", 24, num_attention_heads=3, num_key_value_heads=3, head_dim=8)
    found = refused(source=odd, tensor_parallel=2)
    assert "num_attention_heads is 3, which 2 does not divide" in found
    assert "num_key_value_heads is 3" in found and "device_map" in found
    bare = tiny_backbone("llama", 16, base_model_tp_plan={})
    assert "torchrun --nproc_per_node=2" in refused(tensor_parallel=2), bare
    assert "LOCAL_RANK" in refused(tensor_parallel=2, device="cpu")
    assert "executor 'offload'" in refused(device_map="auto", executor="offload")
    assert "max_memory" in refused(max_memory={"cpu": "1GiB"})
