"""Configurations of absurd sizes are refused before anything is built from them."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

import latentmas as lm
from latentmas.backbones import load_backbone, read_info
from tests.teams import tiny


def changed(folder: Path, **fields: Any) -> lm.Backbone:
    """A tiny model whose configuration says something else."""
    shutil.copytree(tiny("qwen3", 16).source, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
    return lm.Backbone(str(folder))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"num_hidden_layers": 10**6}, "num_hidden_layers = 1,000,000, and .* more than 1,024"),
        ({"num_hidden_layers": 10**12}, "num_hidden_layers = 1,000,000,000,000"),
        ({"n_layer": 2000}, "n_layer = 2,000"),
        ({"hidden_size": 2**21}, "hidden_size = 2,097,152, and .* more than 1,048,576"),
        ({"vocab_size": 10**9}, "vocab_size = 1,000,000,000, and .* more than 16,777,216"),
        ({"intermediate_size": 10**300}, r"intermediate_size = more than 10\*\*18"),
        ({"num_attention_heads": 10**9}, "num_attention_heads"),
        ({"num_experts": 10**9}, "num_experts"),
        ({"text_config": {"num_hidden_layers": 10**9}}, "num_hidden_layers"),
    ],
)
def test_absurd_sizes_are_refused_at_once(
    tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    backbone = changed(tmp_path / "model", **fields)
    began = time.perf_counter()
    with pytest.raises(lm.WeightsError, match=rf"model' has {words}"):
        read_info(backbone)
    assert time.perf_counter() - began < 60


def test_a_compile_reports_it_as_a_problem(tmp_path: Path) -> None:
    graph = lm.Graph("one", inputs=["question"])
    backbone = changed(tmp_path / "model", num_hidden_layers=10**6)
    graph.add_agent("solver", backbone, prompt="{{ question }}")
    with pytest.raises(lm.GraphError, match=r"LM201 .*num_hidden_layers = 1,000,000"):
        graph.output("solver").compile()


def test_a_configuration_that_changed_after_compiling(tmp_path: Path) -> None:
    graph = lm.Graph("one", inputs=["question"])
    folder = tmp_path / "model"
    graph.add_agent("solver", changed(folder), prompt="{{ question }}")
    (planned,) = graph.output("solver").compile().backbones.values()
    shutil.rmtree(folder)
    changed(folder, num_hidden_layers=10**6)
    with pytest.raises(lm.WeightsError, match="num_hidden_layers = 1,000,000"):
        load_backbone(planned)


def test_the_sizes_of_large_models_are_fine(tmp_path: Path) -> None:
    """A vocabulary larger than any published one, and a long context."""
    large = {"vocab_size": 2**21, "max_position_embeddings": 10**7}
    assert read_info(changed(tmp_path / "model", **large)).vocab_size == 2**21
