"""Facts about the paper's models, so that its teams compile without a network.

They come from the models' `config.json` on the hub. Loading compares the width with the weights.
Counts for the cost model were measured on the meta device from configurations of these shapes, not
from the hub. Least certain are Qwen3.5-2B's inner width and linear heads, Qwen3.5-4B's linear heads
and BioMistral's sliding window; the tests list the shapes.
"""

from __future__ import annotations

from typing import Any

from latentmas.plan import BackboneCosts, BackboneInfo

__all__ = ["KNOWN"]


def _info(
    model_type: str, width: int, layers: int, vocabulary: int, positions: int, costs: BackboneCosts
) -> BackboneInfo:
    return BackboneInfo(
        model_type=model_type,
        hidden_size=width,
        vocab_size=vocabulary,
        num_layers=layers,
        max_positions=positions,
        costs=costs,
    )


def _costs(body: int, head: int, loaded: int, widest: int, **counts: Any) -> BackboneCosts:
    return BackboneCosts(
        body_parameters=body,
        head_parameters=head,
        loaded_parameters=loaded,
        widest=widest,
        dtype="bfloat16",
        **counts,
    )


def _full(layers: int, attention: int, kv: int) -> dict[str, Any]:
    return {"attention_width": attention, "kv_elements": kv, "layers": {"full": layers}}


def _hybrid(
    full: int, attention: int, kv: int, recurrent: int, states: int, conv: int, width: int
) -> dict[str, Any]:
    """Counts for Qwen3.5: three layers of linear attention per layer of full attention."""
    return {
        "attention_width": attention,
        "kv_elements": kv,
        "recurrent_elements": states,
        "conv_elements": conv,
        "recurrent_width": width,
        "layers": {"recurrent": recurrent, "full": full},
    }


_QWEN2_1_5B = _full(28, attention=43_008, kv=14_336)

KNOWN: dict[str, BackboneInfo] = {
    "BioMistral/BioMistral-7B": _info(
        "mistral",
        4096,
        32,
        32000,
        32768,
        _costs(
            6_979_588_096,
            131_072_000,
            7_241_732_096,
            14336,
            sliding_window=4096,
            sliding_attention_width=131_072,
            sliding_kv_elements=65_536,
            layers={"sliding": 32},
        ),
    ),
    "Qwen/Qwen2.5-Coder-3B-Instruct": _info(
        "qwen2",
        2048,
        36,
        151936,
        32768,
        _costs(2_774_773_760, 311_164_928, 3_085_938_688, 11008, **_full(36, 73_728, 18_432)),
    ),
    "Qwen/Qwen2.5-Math-1.5B-Instruct": _info(
        "qwen2",
        1536,
        28,
        151936,
        4096,
        _costs(1_310_340_608, 233_373_696, 1_543_714_304, 8960, **_QWEN2_1_5B),
    ),
    "Qwen/Qwen3-1.7B": _info(
        "qwen3",
        2048,
        28,
        151936,
        40960,
        _costs(1_409_410_048, 311_164_928, 1_720_574_976, 6144, **_full(28, 57_344, 57_344)),
    ),
    "Qwen/Qwen3.5-2B": _info(
        "qwen3_5_text",
        2048,
        24,
        248320,
        262144,
        _costs(
            1_373_265_728,
            508_559_360,
            1_881_825_088,
            6144,
            **_hybrid(6, 12_288, 6_144, 18, 4_718_592, 442_368, 6144),
        ),
    ),
    "Qwen/Qwen3.5-4B": _info(
        "qwen3_5_text",
        2560,
        32,
        248320,
        262144,
        _costs(
            3_570_052_096,
            635_699_200,
            4_205_751_296,
            9216,
            **_hybrid(8, 32_768, 16_384, 24, 12_582_912, 786_432, 8192),
        ),
    ),
    "Qwen/Qwen3.5-9B": _info(
        "qwen3_5_text",
        4096,
        32,
        248320,
        262144,
        _costs(
            6_919_565_824,
            1_017_118_720,
            8_953_803_264,
            12288,
            **_hybrid(8, 32_768, 16_384, 24, 12_582_912, 786_432, 8192),
        ),
    ),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": _info(
        "qwen2",
        1536,
        28,
        151936,
        131072,
        _costs(1_310_340_608, 233_373_696, 1_777_088_000, 8960, **_QWEN2_1_5B),
    ),
    "google/gemma-3-4b-it": _info(
        "gemma3_text",
        2560,
        34,
        262208,
        131072,
        _costs(
            3_209_010_688,
            671_252_480,
            4_300_079_472,  # includes the vision tower, which is loaded too
            10240,
            attention_width=10_240,
            kv_elements=10_240,
            sliding_window=1024,
            sliding_attention_width=59_392,
            sliding_kv_elements=59_392,
            layers={"sliding": 29, "full": 5},
        ),
    ),
    "meta-llama/Llama-3.2-1B-Instruct": _info(
        "llama",
        2048,
        16,
        128256,
        131072,
        _costs(973_146_112, 262_668_288, 1_235_814_400, 8192, **_full(16, 32_768, 16_384)),
    ),
    "meta-llama/Llama-3.2-3B-Instruct": _info(
        "llama",
        3072,
        28,
        128256,
        131072,
        _costs(2_818_747_392, 394_002_432, 3_212_749_824, 8192, **_full(28, 86_016, 57_344)),
    ),
}
"""Hub id → facts, of the main branch."""
