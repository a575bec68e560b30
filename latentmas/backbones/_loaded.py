"""A loaded backbone: embed, step, logits. Nothing else calls a model.

Shapes: `B` batch, `T` new positions, `L` positions so far (past and new), `D` width,
`V` vocabulary.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from jinja2 import TemplateError
from torch import Tensor
from transformers import PreTrainedModel
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from latentmas.backbones._attention import exact_attention
from latentmas.backbones._base import Family
from latentmas.backbones._chat import render_turns
from latentmas.backbones._probe import probe_static
from latentmas.backbones._registry import find_family
from latentmas.backbones._tokens import begin_ids
from latentmas.backbones.devices.split import Split
from latentmas.backbones.devices.spread import execution_device
from latentmas.backbones.fused import (
    FusedDecoder,
    PackedHead,
    fuse,
    layout_of,
    may_merge,
    merge_decoder,
    pack_head,
)
from latentmas.backbones.kv_cache.masks import Masks
from latentmas.backbones.kv_cache.state import KVCache
from latentmas.backbones.kv_cache.static import StaticKVCache
from latentmas.backbones.loading.quantization import gradient_fault, keep_gradients
from latentmas.errors import WeightsError
from latentmas.plan import PlanBackbone
from latentmas.prompts import ChatMessage

__all__ = ["LoadedBackbone"]


FUSED = "fused decoder"
"""Key of the fused decoder in a backbone's workspace."""
HEAD = "packed head"
"""Key of the head on packed weights in a backbone's workspace."""


class LoadedBackbone:
    """A frozen model with its tokenizer, in evaluation mode, without gradients for its weights."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        planned: PlanBackbone,
        commit: str | None = None,
        split: Split | None = None,
    ) -> None:
        """Freeze the model.

        Args:
            model: The model, where it will run.
            tokenizer: Its tokenizer.
            planned: What the plan says of it.
            commit: Its commit on the hub, None for a folder.
            split: How it is put on several devices; None: it is on one.
        """
        self.commit = commit
        self.adapter_commit: str | None = None
        """Commit of its adapter on the hub."""
        self.base: LoadedBackbone | None = None
        """Loaded model whose weights this one shares, under an adapter. None: they are its own."""
        self.learned = False
        """Whether it has an adapter of an agent's own, which belongs to one system."""
        self.split = split
        self.model = model.eval().requires_grad_(False)
        keep_gradients(model)
        self.tokenizer = tokenizer
        self.planned = planned
        self.family: Family = find_family(planned.info.model_type, planned.spec.family)
        self._decoder = self.family.decoder(model)
        if layout_of(self._decoder) is not None and may_merge(planned.spec, split):
            # At once, not with the first step: the layout of weights decides how products round,
            # and a training that is resumed must round as the one that was not interrupted.
            merge_decoder(list(self._decoder.layers))  # type: ignore[arg-type]
        masks = Masks(self.family.text_config(model))
        self.masks: Masks | None = masks if masks.possible else None
        """Builds attention masks without a device sync. None: the model builds its own."""
        self.workspace: dict[Any, Any] = {}
        """Data that executors keep between runs; cleared when the weights move."""

    @property
    def device(self) -> torch.device:
        """Device of the input embeddings, where states enter and leave the model."""
        if self.split is not None:
            return execution_device(self.model.get_input_embeddings())
        return self.model.get_input_embeddings().weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Data type of the input embeddings."""
        return self.model.get_input_embeddings().weight.dtype

    @property
    def quantized(self) -> bool:
        """Whether weights are quantised, so that their type cannot be changed."""
        return bool(getattr(self.model, "is_quantized", False))

    @cached_property
    def _gradient_fault(self) -> str | None:
        return gradient_fault(self._decoder) if self.quantized else None

    @property
    def learns(self) -> bool:
        """Whether any weight of the model requires gradients; none does after loading."""
        return any(weight.requires_grad for weight in self.model.parameters())

    def embed(self, ids: Tensor) -> Tensor:
        """Input embeddings of token ids, `(…)` to `(…, D)`, with the model's own scaling."""
        embedded: Tensor = self.model.get_input_embeddings()(ids.to(self.device))
        return embedded

    def mix_embeddings(self, weights_BV: Tensor) -> Tensor:
        """Weighted sums of the first V input embeddings, `(…, V)` to `(…, D)`.

        Equal to `weights_BV @ embed(arange(V))`, without a copy of the table.
        """
        if self.split is not None:
            table_VD = self._shown_table[: weights_BV.shape[-1]]
            return weights_BV.to(table_VD.device, table_VD.dtype) @ table_VD
        table_VD = self.model.get_input_embeddings().weight[: weights_BV.shape[-1]]
        return weights_BV.to(table_VD.device, table_VD.dtype) @ table_VD * self._embedding_scale

    @cached_property
    @torch.no_grad()
    def _shown_table(self) -> Tensor:
        """All input embeddings, (V, D), of a split model, whose own table is in parts or away."""
        ids_V = torch.arange(self.planned.info.vocab_size)
        return torch.cat([self.embed(part) for part in ids_V.split(8192)])

    @cached_property
    def _embedding_scale(self) -> float:
        """Factor by which the model scales its table (Gemma: the square root of the width).

        Raises:
            WeightsError: The embeddings are not rows of one table.
        """
        with torch.no_grad():
            ids = torch.arange(min(16, self.planned.info.vocab_size))
            table = self.model.get_input_embeddings().weight[ids.to(self.device)].double()
            shown = self.embed(ids).double()
            scale = float((shown * table).sum() / table.square().sum())
            if not torch.allclose(shown, scale * table, rtol=0.02, atol=1e-3 * abs(scale)):
                raise WeightsError(
                    f"backbone {self.planned.spec.source!r}: its input embeddings are not the rows "
                    'of one table, so that they cannot be mixed; use link="recursive" and '
                    'inner="recursive"'
                )
            return 1.0 if abs(scale - 1.0) < 1e-6 else scale

    def step(
        self,
        x_BTD: Tensor,
        positions_BT: Tensor,
        mask_BL: Tensor,
        state: KVCache | None = None,
        *,
        padded: bool = True,
        last: bool = False,
    ) -> Tensor:
        """Run the decoder, never the vocabulary head.

        Args:
            x_BTD: Input embeddings of the new positions.
            positions_BT: Position ids of the new positions.
            mask_BL: 1 for real positions, 0 for padding; L counts the past that `state` holds.
            state: State of the previous positions, updated in place. None: there are none.
            padded: Whether the mask may contain a 0; False saves work.
            last: Return the state at the last position alone, which saves work.

        Returns:
            States after the final norm, h_BTD, or h_B1D.

        Raises:
            WeightsError: A gradient is wanted, and quantised layers do not give it.
        """
        new = x_BTD.shape[1]
        may_fuse = (last or new == 1) and not torch.is_grad_enabled()
        if may_fuse and state is not None and self.masks is not None:
            fused = self.current_fused
            if fused is not None:
                mask = self.mask_for(mask_BL, new, state, padded)
                return fused.run(x_BTD.to(self.dtype), positions_BT, mask, state.cache)[:, None]
        return self.run_modules(x_BTD, positions_BT, mask_BL, state, padded=padded, last=last)

    def mask_for(self, mask_BL: Tensor, new: int, state: KVCache, padded: bool = True) -> Any:
        """The decoder's attention mask for T new positions after those that a state holds."""
        if self.masks is None:
            return mask_BL
        self.masks.dtype = self.dtype
        return state.masks(self.masks, mask_BL, new, padded)

    def run_modules(
        self,
        x_BTD: Tensor,
        positions_BT: Tensor,
        mask_BL: Tensor,
        state: KVCache | None = None,
        *,
        padded: bool = True,
        last: bool = False,
    ) -> Tensor:
        """Same as `step`, always through the model's own modules."""
        if x_BTD.requires_grad and torch.is_grad_enabled() and self._gradient_fault:
            raise WeightsError(
                f"backbone {self.planned.spec.source!r} cannot train links: {self._gradient_fault};"
                " use a weight-only quantization, such as 'torchao:int8_weight_only'"
            )
        mask: Any = mask_BL
        if state is not None:
            mask = self.mask_for(mask_BL, x_BTD.shape[1], state, padded)
        with exact_attention(self.device, self.dtype):
            output = self._decoder(
                inputs_embeds=x_BTD.to(self.dtype),
                attention_mask=mask,
                position_ids=positions_BT,
                past_key_values=None if state is None else state.cache,
                use_cache=state is not None,
            )
        output = output[0] if type(output) is tuple else output  # Ouro adds the states of its loops
        states: Tensor = output.last_hidden_state[:, -1:] if last else output.last_hidden_state
        return states.to(x_BTD.device)  # the last layer of a split model may be elsewhere

    @property
    def fused(self) -> FusedDecoder | str:
        """The decoder for calls without gradients, or the reason why there is none.

        It is built when it is first needed, and again after the weights have moved.
        """
        if FUSED not in self.workspace:
            self.workspace[FUSED] = fuse(self)
        found: FusedDecoder | str = self.workspace[FUSED]
        return found

    @property
    def current_fused(self) -> FusedDecoder | None:
        """The fused decoder; None where there is none, or while modules are replaced or hooked."""
        fused = self.fused
        return fused if isinstance(fused, FusedDecoder) and fused.current() else None

    def layer_kinds(self) -> list[str]:
        """Kind of each layer: `full_attention`, `sliding_attention` or `linear_attention`."""
        config = self.family.text_config(self.model)
        count = self.planned.info.num_layers
        kinds = getattr(config, "layer_types", None)
        return list(kinds)[:count] if kinds else [next(iter(Masks(config).kinds))] * count

    @cached_property
    def static_reason(self) -> str | None:
        """Reason why the model cannot run with a `StaticKVCache`; None if it can."""
        if self.split is not None:
            return self.split.reason
        if self.masks is None or not KVCache(self).can_merge():
            return "its layers or its attention need their own masks or memory"
        return probe_static(self, lambda rows, capacity: StaticKVCache(self, rows, capacity))

    def logits(self, h_BD: Tensor) -> Tensor:
        """Logits over the vocabulary, `(…, D)` to `(…, V)`."""
        head = None if torch.is_grad_enabled() else self._packed_head
        if head is not None and head.serves(h_BD):
            return self.family.logits(self.model, h_BD, head)
        return self.family.logits(self.model, h_BD).to(h_BD.device)

    @property
    def _packed_head(self) -> PackedHead | None:
        """The head on packed weights, made when it is first needed; None where there is none."""
        if HEAD not in self.workspace:
            may = may_merge(self.planned.spec, self.split)
            self.workspace[HEAD] = pack_head(self.family, self.model) if may else None
        found: PackedHead | None = self.workspace[HEAD]
        return found

    @property
    def pad_id(self) -> int:
        """A token id for padding; its embedding is masked in any case."""
        return int(self.tokenizer.pad_token_id or 0)

    @cached_property
    def turn_end_id(self) -> int | None:
        """The token that ends an assistant's turn in the chat template, or the tokenizer's EOS.

        It is found by rendering a turn, since it may differ from the EOS token (as for Gemma).
        """
        tokenizer, said = self.tokenizer, "an answer"
        default = None if tokenizer.eos_token_id is None else int(tokenizer.eos_token_id)
        if not tokenizer.chat_template:
            return default
        try:
            text = render_turns(
                tokenizer, [ChatMessage("user", "?"), ChatMessage("assistant", said)], {}
            )
        except TemplateError:
            return default
        after = tokenizer(text.rpartition(said)[2], add_special_tokens=False).input_ids
        return next((int(token) for token in after if token in self.stop_ids), default)

    @cached_property
    def begin_ids(self) -> list[int]:
        """The tokens that the tokenizer adds at the start of a text, usually one or none."""
        return begin_ids(self.tokenizer)

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a text: the tokenizer's and the generation configuration's."""
        found = {self.tokenizer.eos_token_id}
        config = getattr(self.model, "generation_config", None)
        ends = getattr(config, "eos_token_id", None)
        found.update(ends if isinstance(ends, list) else [ends])
        return frozenset(int(token) for token in found if token is not None)
