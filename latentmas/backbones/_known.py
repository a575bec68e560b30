"""Facts of the paper's models, so that its teams compile without a network.

From the models' `config.json` on the hub. Loading compares the width with the weights.
"""

from __future__ import annotations

from latentmas.plan import BackboneInfo

__all__ = ["KNOWN"]


def _info(
    model_type: str, width: int, layers: int, vocabulary: int, positions: int
) -> BackboneInfo:
    return BackboneInfo(
        model_type=model_type,
        hidden_size=width,
        vocab_size=vocabulary,
        num_layers=layers,
        max_positions=positions,
    )


KNOWN: dict[str, BackboneInfo] = {
    "BioMistral/BioMistral-7B": _info("mistral", 4096, 32, 32000, 32768),
    "Qwen/Qwen2.5-Coder-3B-Instruct": _info("qwen2", 2048, 36, 151936, 32768),
    "Qwen/Qwen2.5-Math-1.5B-Instruct": _info("qwen2", 1536, 28, 151936, 4096),
    "Qwen/Qwen3-1.7B": _info("qwen3", 2048, 28, 151936, 40960),
    "Qwen/Qwen3.5-2B": _info("qwen3_5_text", 2048, 24, 248320, 262144),
    "Qwen/Qwen3.5-4B": _info("qwen3_5_text", 2560, 32, 248320, 262144),
    "Qwen/Qwen3.5-9B": _info("qwen3_5_text", 4096, 32, 248320, 262144),
    "deepseek-ai/DeepSeek-R1-Distill-Qwen-1.5B": _info("qwen2", 1536, 28, 151936, 131072),
    "google/gemma-3-4b-it": _info("gemma3_text", 2560, 34, 262208, 131072),
    "meta-llama/Llama-3.2-1B-Instruct": _info("llama", 2048, 16, 128256, 131072),
    "meta-llama/Llama-3.2-3B-Instruct": _info("llama", 3072, 28, 128256, 131072),
}
"""Hub id → facts, of the main branch."""
