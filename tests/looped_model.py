"""A tiny looped language model, with code of its own in its folder, as Ouro has it."""

from __future__ import annotations

import json
from pathlib import Path

from latentmas.testing import tiny_backbone

CODE = """
from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel
from transformers.cache_utils import DynamicCache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast


class LoopedConfig(LlamaConfig):
    model_type = "tiny_looped"
    total_ut_steps: int = 3


class LoopedModel(LlamaModel):
    config_class = LoopedConfig

    def forward(self, input_ids=None, attention_mask=None, position_ids=None,
                past_key_values=None, inputs_embeds=None, use_cache=None, **kwargs):
        h = self.embed_tokens(input_ids) if inputs_embeds is None else inputs_embeds
        if use_cache and past_key_values is None:
            past_key_values = DynamicCache()
        mask = create_causal_mask(config=self.config, inputs_embeds=h,
                                  attention_mask=attention_mask, position_ids=position_ids,
                                  past_key_values=past_key_values)
        if position_ids is None:
            position_ids = self._positions(h, past_key_values)
        rotary = self.rotary_emb(h, position_ids)
        for step in range(self.config.total_ut_steps):
            for number, layer in enumerate(self.layers):
                layer.self_attn.layer_idx = step * len(self.layers) + number
                h = layer(h, attention_mask=mask, position_ids=position_ids,
                          past_key_values=past_key_values, position_embeddings=rotary, **kwargs)
            h = self.norm(h)
        return BaseModelOutputWithPast(last_hidden_state=h, past_key_values=past_key_values), [], []

    def _positions(self, h, cache):
        import torch

        begin = 0 if cache is None else cache.get_seq_length()
        return torch.arange(begin, begin + h.shape[1], device=h.device)[None]


class LoopedForCausalLM(LlamaForCausalLM):
    config_class = LoopedConfig

    def __init__(self, config):
        super().__init__(config)
        self.model = LoopedModel(config)
        self.post_init()

    def forward(self, input_ids=None, attention_mask=None, position_ids=None,
                past_key_values=None, inputs_embeds=None, use_cache=None, **kwargs):
        from transformers.modeling_outputs import CausalLMOutputWithPast

        found, _, _ = self.model(input_ids, attention_mask, position_ids, past_key_values,
                                 inputs_embeds, use_cache)
        return CausalLMOutputWithPast(logits=self.lm_head(found.last_hidden_state),
                                      past_key_values=found.past_key_values)
"""


def looped_model(folder: Path, *, width: int = 16, loops: int = 3) -> str:
    """Write the model's folder: weights of a tiny Llama, read several times."""
    tiny_backbone("llama", width, folder=folder, initializer_range=0.12)
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {
        "model_type": "tiny_looped",
        "architectures": ["LoopedForCausalLM"],
        "total_ut_steps": loops,
        "auto_map": {
            "AutoConfig": "modeling_looped.LoopedConfig",
            "AutoModelForCausalLM": "modeling_looped.LoopedForCausalLM",
        },
    }
    path.write_text(json.dumps(config))
    (folder / "modeling_looped.py").write_text(CODE)
    return str(folder)
