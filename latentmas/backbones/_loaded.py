"""A loaded backbone: embed, step, logits. Nothing else calls a model.

Shapes: `B` batch, `T` new positions, `L` positions so far (past and new), `D` width,
`V` vocabulary.
"""

from __future__ import annotations

import json
from functools import cached_property
from pathlib import Path
from types import MethodType
from typing import Any

import torch
from jinja2 import TemplateError
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerFast,
)
from transformers.cache_utils import LinearAttentionCacheLayerMixin
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import find_adapter_config_file, is_peft_available

from latentmas.backbones._base import Family
from latentmas.backbones._facts import resolve_source
from latentmas.backbones._probe import probe
from latentmas.backbones._registry import find_family
from latentmas.errors import WeightsError
from latentmas.plan import PlanBackbone

__all__ = ["LoadedBackbone", "State", "load_backbone"]


class State:
    """What a model remembers of the positions it has seen; grows with every step."""

    def __init__(self, backbone: LoadedBackbone) -> None:
        self.cache = backbone.family.new_cache(backbone.model)

    @property
    def length(self) -> int:
        """Positions seen so far, L."""
        return int(self.cache.get_seq_length())

    def snapshot(self) -> list[dict[str, Any]]:
        """What is remembered now, to be given to `restore`; recurrent states are copied."""
        return [_fields(layer) for layer in self.cache.layers]

    def restore(self, snapshot: list[dict[str, Any]]) -> None:
        """Take over a snapshot, of this state or of another of the same model.

        The snapshot may be used again.
        """
        for layer, fields in zip(self.cache.layers, snapshot, strict=True):
            own = {k: v for k, v in layer.__dict__.items() if isinstance(v, MethodType)}
            layer.__dict__.clear()
            layer.__dict__.update(_copied(fields) if _is_recurrent(layer) else fields, **own)

    def expand(self, times: int) -> None:
        """Repeat each row of the batch, one after the other."""
        for layer in self.cache.layers:
            fields = layer.__dict__
            layer.__dict__.update({name: _repeated(v, times) for name, v in fields.items()})


def _is_recurrent(layer: Any) -> bool:
    return isinstance(layer, LinearAttentionCacheLayerMixin)


def _fields(layer: Any) -> dict[str, Any]:
    """A layer's content. Attention layers replace their tensors, recurrent ones write into them."""
    fields = {k: v for k, v in layer.__dict__.items() if not isinstance(v, MethodType)}
    return _copied(fields) if _is_recurrent(layer) else fields


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def _repeated(value: Any, times: int) -> Any:
    if isinstance(value, Tensor) and value.dim() > 0:
        return value.repeat_interleave(times, dim=0)
    if isinstance(value, dict):
        return {key: _repeated(item, times) for key, item in value.items()}
    return [_repeated(item, times) for item in value] if isinstance(value, list) else value


class LoadedBackbone:
    """A frozen model with its tokenizer, in evaluation mode, without gradients of its own."""

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, planned: PlanBackbone
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.planned = planned
        self.family: Family = find_family(planned.info.model_type, planned.spec.family)
        self._decoder = self.family.decoder(model)

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Type of the input embeddings."""
        return self.model.get_input_embeddings().weight.dtype

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings of token ids, `(…)` to `(…, D)`, scaled as the model scales them."""
        embedded: Tensor = self.model.get_input_embeddings()(ids.to(self.device))
        return embedded

    def step(
        self, x_BTD: Tensor, positions_BT: Tensor, mask_BL: Tensor, state: State | None = None
    ) -> Tensor:
        """Run the decoder, never the vocabulary head.

        Args:
            x_BTD: input embeddings of the new positions.
            positions_BT: their position ids.
            mask_BL: 1 for real positions, 0 for padding; L counts the past that `state` holds.
            state: what was seen before; it takes in the new positions. None: nothing was.

        Returns:
            States after the final norm, h_BTD.
        """
        output = self._decoder(
            inputs_embeds=x_BTD.to(self.dtype),
            attention_mask=mask_BL,
            position_ids=positions_BT,
            past_key_values=None if state is None else state.cache,
            use_cache=state is not None,
        )
        states: Tensor = output.last_hidden_state
        return states

    def logits(self, h_BD: Tensor) -> Tensor:
        """Scores over the vocabulary, `(…, D)` to `(…, V)`."""
        return self.family.logits(self.model, h_BD)

    @property
    def pad_id(self) -> int:
        """A token id for padded places, whose embedding is masked anyway."""
        return int(self.tokenizer.pad_token_id or 0)

    @cached_property
    def turn_end_id(self) -> int | None:
        """The token that ends an assistant's turn in the chat template, else the tokenizer's end.

        Read off a rendered turn, token by token: for Gemma it is not the end of a sequence.
        """
        tokenizer, said = self.tokenizer, "an answer"
        default = None if tokenizer.eos_token_id is None else int(tokenizer.eos_token_id)
        if not tokenizer.chat_template:
            return default
        turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": said}]
        try:
            text = str(tokenizer.apply_chat_template(turns, tokenize=False))
        except TemplateError:
            return default
        after = tokenizer(text.rpartition(said)[2], add_special_tokens=False).input_ids
        return next((int(token) for token in after if token in self.stop_ids), default)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a text: the tokenizer's and the generation configuration's."""
        found = {self.tokenizer.eos_token_id}
        config = getattr(self.model, "generation_config", None)
        ends = getattr(config, "eos_token_id", None)
        found.update(ends if isinstance(ends, list) else [ends])
        return frozenset(int(token) for token in found if token is not None)


def load_backbone(
    planned: PlanBackbone, *, device: str = "cpu", dtype: str | None = None
) -> LoadedBackbone:
    """Load a backbone's weights and tokenizer.

    Args:
        planned: which one, and the facts that its plan was compiled with.
        device: where to.
        dtype: in place of what the declaration says.

    Raises:
        WeightsError: it cannot be loaded, has another width than planned, or cannot serve: its
            family computes other logits than the model, or its states change with a batch's
            padding or when it reads piece by piece.
    """
    spec = planned.spec
    source = resolve_source(spec.source)
    wanted = dtype or spec.dtype
    options = {"revision": spec.revision, "trust_remote_code": spec.trust_remote_code}
    try:
        tokenizer = _load_tokenizer(source, options)
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            source,
            dtype=wanted if wanted == "auto" else getattr(torch, wanted),
            attn_implementation=spec.attention,
            output_loading_info=True,
            **options,
            **_without_foreign_adapter(source, spec.revision),
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise WeightsError(f"cannot load backbone {spec.source!r}: {reason}") from error
    model, found = loaded
    if found["missing_keys"]:
        names = ", ".join(sorted(found["missing_keys"])[:5])
        raise WeightsError(f"cannot load backbone {spec.source!r}: its weights lack {names}")
    backbone = LoadedBackbone(model.to(device), tokenizer, planned)
    probe(backbone, lambda: State(backbone))
    return backbone


def _without_foreign_adapter(source: str, revision: str | None) -> dict[str, Any]:
    """Options that keep transformers from reading another tool's `adapter_config.json`.

    Where peft is installed, transformers takes any file of that name for a peft adapter; the
    published RecursiveMAS checkpoints have one beside their models.
    """
    if not is_peft_available():
        return {}
    found = find_adapter_config_file(source, revision=revision)
    if found is None or "peft_type" in json.loads(Path(found).read_text(encoding="utf-8")):
        return {}
    return {"adapter_kwargs": {"subfolder": "no-peft-adapter-here"}}


def _load_tokenizer(source: str, options: dict[str, Any]) -> PreTrainedTokenizerBase:
    """The tokenizer that the files describe.

    For some model types (qwen2 among them) transformers 5.23 replaces the class that a checkpoint
    names by its own, which reads other tokenizers' files wrongly without a word.
    """
    named = get_tokenizer_config(source, **options).get("tokenizer_class")
    generic = named in ("TokenizersBackend", "PreTrainedTokenizerFast")
    loader = PreTrainedTokenizerFast if generic else AutoTokenizer
    tokenizer: PreTrainedTokenizerBase = loader.from_pretrained(source, **options)
    return tokenizer
