"""One backbone over several processes, groups of such processes, and layers on several devices."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig
from typer.testing import CliRunner

import latentmas as lm
from latentmas.cli.app import app
from latentmas.evaluation import read_records
from latentmas.testing import tiny_backbone
from tests.parallel_work import ROWS, SAMPLES, gradients, team, train
from tests.processes import run_alone, run_processes

SMALL = tiny_backbone("qwen3", 16)


@pytest.mark.parametrize("link", ["recursive", "soft_token"])
def test_two_processes_hold_one_backbone(link: str) -> None:
    first, second = run_processes(2, "split_and_whole", SMALL.source, link)
    assert first == second
    assert first.pop("part") == [[16, 16], [32, 16]]
    assert first.pop("trained") >= 9
    for name, difference in first.items():
        assert difference <= (1e-9 if "float64" in name else 1e-5), (name, difference)


def test_processes_of_a_group_that_differ_are_told_so(tmp_path: Path) -> None:
    first, second = run_processes(2, "different_calls", SMALL.source, str(tmp_path))
    assert first == second
    for name in ("rows", "options"):
        assert f"were given different {name}" in first[name]
        assert "ranks 0 to 1" in first[name] and "system.mesh.share(rows)" in first[name]
    assert "different team" in first["teams"] and "different data" in first["training"]
    for name in ("move", "offload", "static"):
        assert "split over 2 processes" in first[name], first[name]
    assert first["after"].startswith("[[")
    assert first["evaluated 2"] == first["evaluated 4"] == "1.0"
    rows = read_records(tmp_path / "rows.jsonl")  # the first of the group alone has written
    assert [record.row for record in rows] == [0, 1, 2, 3]
    assert [path.name for path in tmp_path.glob("run-*.json")] == ["run-0.json"]


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


def test_what_cannot_be_split_is_refused_before_weights_load(tmp_path: Path) -> None:
    odd = tiny_backbone("llama", 24, num_attention_heads=3, num_key_value_heads=3, head_dim=8)
    found = refused(source=odd, tensor_parallel=2)
    assert "num_attention_heads is 3, which 2 does not divide" in found
    assert "num_key_value_heads is 3" in found and "device_map" in found
    AutoConfig.for_model("gpt2", n_embd=16, n_layer=1, n_head=2, vocab_size=260).save_pretrained(
        tmp_path
    )
    found = refused(source=lm.Backbone(str(tmp_path)), tensor_parallel=2)
    assert "no tensor-parallel plan for 'gpt2'" in found
    odd_width = tiny_backbone("qwen3", 16, intermediate_size=33)
    assert "intermediate_size is 33" in refused(source=odd_width, tensor_parallel=2)
    method = {"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    quantized = tiny_backbone("qwen3", 16, folder=tmp_path / "quantized", **method)
    assert "it is quantized" in refused(source=quantized, tensor_parallel=2)
    assert "torchrun --nproc_per_node=2" in refused(tensor_parallel=2)
    assert "LOCAL_RANK" in refused(tensor_parallel=2, device="cpu")
    assert "executor 'offload'" in refused(device_map="auto", executor="offload")
    assert "max_memory" in refused(max_memory={"cpu": "1GiB"})


def test_a_job_that_loses_a_process_resumes_and_gives_the_same_links(tmp_path: Path) -> None:
    code, said = run_alone("tests.elastic_job:launch", SMALL.source, str(tmp_path))
    assert code == 0, said[-4000:]
    assert (tmp_path / "was-killed").exists()
    one, other = (tmp_path / name / "team" / "links.safetensors" for name in ("whole", "killed"))
    assert one.read_bytes() == other.read_bytes()
    record = lm.System.from_pretrained(tmp_path / "killed" / "team").history[-1]
    assert record.manifest["resumed_at"] == [2] and record.manifest["steps"] == 4


LAYERS: dict[str, str | int] = {
    "model.embed_tokens": "disk",
    "model.layers.0": "cpu",
    "model.layers.1": "disk",
    "model.norm": "cpu",
    "model.rotary_emb": "cpu",
    "lm_head": "disk",
}


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal but for rounding: weights of a model in one piece are stored in another layout."""
    assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


@pytest.mark.parametrize("link", ["recursive", "soft_token"])
def test_layers_may_be_on_several_devices(link: str) -> None:
    """Here: memory and disk, by the hooks that also move states between GPUs."""
    plan = team(SMALL.source, link)
    whole = plan.load()
    spread = plan.load(device_map={"planner": LAYERS, "critic": LAYERS})
    backbone = spread.backbone_of("planner")
    places = {str(weight.device) for weight in backbone.model.parameters()}
    assert places == {"cpu", "meta"} and str(backbone.device) == "cpu"
    assert spread.backbone_of("critic") is backbone is not spread.backbone_of("solver")
    for executor in ("cached", "reference"):
        options: Any = {"max_new_tokens": 4, "record": "messages", "executor": executor}
        one, other = spread.run(SAMPLES, **options), whole.run(SAMPLES, **options)
        assert one.token_ids == other.token_ids
        for name, message in one.messages.items():
            close(message, other.messages[name])
    (loss, grads), (loss_, grads_) = gradients(spread), gradients(whole)
    assert loss == pytest.approx(loss_, rel=1e-6)
    for found, wanted in zip(grads, grads_, strict=True):
        close(found, wanted)
    with pytest.raises(lm.LatentMASError, match="its layers are on several devices"):
        spread.run(SAMPLES, executor="offload")
    with pytest.raises(lm.LatentMASError, match="stays as it was loaded"):
        spread.double()
    twin = spread.text_twin()
    assert twin.backbone_of("planner") is backbone and twin.run(SAMPLES, max_new_tokens=2).texts


def test_a_device_map_of_one_device_is_no_spread() -> None:
    system = team(SMALL.source).load(device_map="auto", max_memory={"cpu": "1GiB"})
    assert system.backbone_of("solver").split is None and system.mesh is None
    system.double()


@pytest.mark.parametrize(
    ("device_map", "found"),
    [
        ("autp", "did you mean 'auto'"),
        ({"plannr": "auto"}, "did you mean 'planner'"),
        ({"planner": "auto", "other": "auto"}, "unknown agent 'other'"),
        ({"": "cuda:7"}, "device 'cuda:7' is not available"),
        ({"": 1.5}, "neither one of auto"),
        (3, "device_map is a int"),
    ],
)
def test_device_maps_are_checked(device_map: Any, found: str) -> None:
    assert found in refused(device_map=device_map)
    assert "both device and device_map" in refused(device_map="auto", device="cpu")


def test_the_command_line_takes_a_device_map(tmp_path: Path) -> None:
    graph = team(SMALL.source).graph
    lm.Graph.from_spec(graph).save(tmp_path / "team.yaml")
    words = ["run", str(tmp_path / "team.yaml"), "Hi", "--max-new-tokens", "1"]
    runner = CliRunner()
    plain = runner.invoke(app, words)
    spread = ["--device-map", "planner=auto", "--max-memory", "cpu=4GiB"]
    found = runner.invoke(app, [*words, *spread])
    assert (found.exit_code, found.stdout) == (plain.exit_code, plain.stdout) and plain.stdout
    wrong = runner.invoke(app, [*words, "--device-map", "auto", "--device", "cuda:0"])
    assert wrong.exit_code == 2 and "leave out --device" in wrong.output
    wrong = runner.invoke(app, [*words, "--max-memory", "0=1GiB"])
    assert wrong.exit_code == 2 and "--max-memory requires --device-map" in wrong.output
    wrong = runner.invoke(app, [*words, "--device-map", "planner=atuo"])
    assert wrong.exit_code == 1 and "unknown device_map 'atuo'" in wrong.output


@pytest.mark.parametrize("strategy", [{"fsdp": True}, {"deepspeed": {"train_batch_size": 1}}])
def test_sharding_what_is_trained_is_refused(strategy: Any, tmp_path: Path) -> None:
    system = team(SMALL.source).load()
    config = lm.OuterConfig(str(tmp_path), use_cpu=True)
    for name, value in strategy.items():
        setattr(config, name, value)
    with pytest.raises(lm.LatentMASError, match=f"{name} is not supported"):
        lm.OuterTrainer(system, config, train_dataset=ROWS)
