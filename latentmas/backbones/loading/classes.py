"""Which of transformers' classes loads a model, and which models cannot serve."""

from __future__ import annotations

from typing import Any

from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from latentmas.backbones.loading.refusals import UnsuitableBackboneError

__all__ = ["check_decoder", "model_class"]

SIZES = ("hidden_size", "vocab_size", "num_hidden_layers")


def model_class(config: PreTrainedConfig) -> Any:
    """The auto class that loads the model as a language model.

    An image-text model without a causal class of its own is loaded whole: its language model is the
    decoder, and the rest is not called.
    """
    known = type(config)
    causal = known in AutoModelForCausalLM._model_mapping
    wrapped = known in AutoModelForImageTextToText._model_mapping
    return AutoModelForImageTextToText if wrapped and not causal else AutoModelForCausalLM


def check_decoder(source: str, config: PreTrainedConfig) -> None:
    """Check that a configuration is that of a decoder.

    Raises:
        UnsuitableBackboneError: It is not; the message says what it is.
    """
    text: Any = config.get_text_config(decoder=True)
    missing = [name for name in SIZES if not isinstance(getattr(text, name, None), int)]
    what = f"{source!r} is {config.model_type}"
    if getattr(config, "is_encoder_decoder", False) or missing:
        lack = f" (its configuration has no {', '.join(missing)})" if missing else ""
        raise UnsuitableBackboneError(f"{what}, not a decoder{lack}")
    masked = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if masked and getattr(config, "is_decoder", None) is False:
        raise UnsuitableBackboneError(
            f"{what}, an encoder: each of its positions attends to later ones"
        )
    served = model_class(config)
    own_code = served.__name__ in (getattr(config, "auto_map", None) or {})
    if type(config) not in served._model_mapping and not own_code:
        raise UnsuitableBackboneError(f"{what}, and transformers has no causal model of that type")
