"""GGUF files as backbones: unpacked once, equal to what transformers reads from them."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import pre_tokenizers
from transformers import AutoModelForCausalLM, GgufConfig

import latentmas as lm
from latentmas.backbones import read_info
from latentmas.backbones.loading import gguf as _gguf
from latentmas.testing._tiny import CHAT_TEMPLATE

gguf = pytest.importorskip("gguf", reason="the extra gguf is not installed")
WIDTH, HEADS, LAYERS = 32, 4, 2


def write(path: Path) -> Path:
    """A llama with random weights: matrices in Q8_0, norms in F32, a vocabulary of bytes."""
    noise = np.random.default_rng(0)
    tokens = ["<unk>", "<bos>", "<|im_end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(2 * WIDTH)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS // 2)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_dimension_count(WIDTH // HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3, 3, 3] + [1] * (len(tokens) - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_chat_template(CHAT_TEMPLATE.replace("<|im_start|>", "<bos>"))

    def matrix(name: str, rows: int, columns: int) -> None:
        values = noise.normal(0, 0.3, (rows, columns)).astype(np.float32)
        kind = gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(name, gguf.quantize(values, kind), raw_dtype=kind)

    matrix("token_embd.weight", len(tokens), WIDTH)
    writer.add_tensor("output_norm.weight", np.ones(WIDTH, np.float32))
    for i in range(LAYERS):
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{i}.{name}.weight", np.ones(WIDTH, np.float32))
        for name, rows, columns in (
            ("attn_q", WIDTH, WIDTH),
            ("attn_k", WIDTH // 2, WIDTH),
            ("attn_v", WIDTH // 2, WIDTH),
            ("attn_output", WIDTH, WIDTH),
            ("ffn_gate", 2 * WIDTH, WIDTH),
            ("ffn_up", 2 * WIDTH, WIDTH),
            ("ffn_down", WIDTH, 2 * WIDTH),
        ):
            matrix(f"blk.{i}.{name}.weight", rows, columns)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LATENTMAS_CACHE", str(tmp_path / "cache"))
    return write(tmp_path / "tiny.gguf")


def team(source: str, dtype: str = "float32") -> lm.Graph:
    graph = lm.Graph("one", inputs=["question"], rounds=1)
    backbone = lm.Backbone(source, dtype=dtype)
    graph.add_agent("one", backbone, prompt="{{ question }}", max_new_tokens=4)
    return graph.output("one")


def test_a_file_loads_like_a_folder(file: Path) -> None:
    system = team(str(file)).compile().load()
    backbone = system.backbone_of("one")
    wanted = AutoModelForCausalLM.from_pretrained(
        file.parent,
        gguf_file=file.name,
        dtype=torch.float32,
        quantization_config=GgufConfig(dequantize=True),
    )
    for name, weight in wanted.state_dict().items():
        assert torch.equal(backbone.model.state_dict()[name], weight), name
    assert backbone.tokenizer.decode(backbone.tokenizer("a cat").input_ids) == "a cat"
    assert backbone.turn_end_id == 2
    assert len(system("What is 1 + 1?").texts) == 1


def test_it_is_unpacked_once(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = team(str(file)).compile()
    first.load()
    monkeypatch.setattr(_gguf, "_unpack", None)
    monkeypatch.setitem(sys.modules, "gguf", None)  # the package is not needed again
    again = team(str(file)).compile()
    assert again == first
    assert again.load()("a cat").texts


def test_types_have_folders_of_their_own(file: Path) -> None:
    assert _gguf.unpacked(str(file), "auto").name == "bfloat16"
    assert _gguf.unpacked(str(file), "float32").name == "float32"
    system = team(str(file), dtype="auto").compile().load()
    assert system.backbone_of("one").dtype == torch.bfloat16


def test_a_file_in_a_package(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = file.parent / "models_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("")
    file.rename(package / "tiny.gguf")
    monkeypatch.syspath_prepend(str(file.parent))
    info = read_info(lm.Backbone("package:models_of_a_test/tiny.gguf"))
    assert (info.model_type, info.hidden_size, info.num_layers) == ("llama", WIDTH, LAYERS)
    with pytest.raises(lm.WeightsError, match=r"no folder or GGUF file 'other\.gguf'"):
        read_info(lm.Backbone("package:models_of_a_test/other.gguf"))
    sys.modules.pop("models_of_a_test", None)


def test_what_is_missing_is_said(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(lm.WeightsError, match=r"file '/no/such\.gguf' does not exist"):
        read_info(lm.Backbone("/no/such.gguf"))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(lm.WeightsError, match=r"pip install 'latentmas\[gguf\]'"):
        read_info(lm.Backbone(str(file)))


def test_a_damaged_file_is_refused(file: Path) -> None:
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 8])
    with pytest.raises(lm.GraphError, match=r"LM201.* as a GGUF file: .*; it may be incomplete or"):
        team(str(file)).compile()
    assert not list((file.parent / "cache").rglob("unpacked"))


def test_a_cache_that_cannot_be_written_says_so(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file.parent / "taken").write_text("")
    monkeypatch.setenv("LATENTMAS_CACHE", str(file.parent / "taken"))
    plan = team(str(file)).compile()
    with pytest.raises(lm.WeightsError, match="set LATENTMAS_CACHE"):
        plan.load()
