"""Loading a backbone's tokenizer, with the chat template that is to be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerFast
from transformers.models.auto.tokenization_auto import get_tokenizer_config
from transformers.tokenization_utils_base import PreTrainedTokenizerBase
from transformers.utils import cached_file

from latentmas.backbones.loading.files import Files, tokenizer_files
from latentmas.errors import WeightsError
from latentmas.safe_data import parse_json
from latentmas.spec import Backbone

__all__ = ["check_ids_fit", "load_tokenizer"]

PROCESSOR_TEMPLATE = "chat_template.json"
"""Where the processors of older image-text models keep the chat template."""


def load_tokenizer(spec: Backbone, model: Files) -> PreTrainedTokenizerBase:
    """Load the tokenizer that the files describe.

    For some model types (such as qwen2), transformers 5.23 replaces the class named in a checkpoint
    by its own, which silently misreads the files of other tokenizers.

    Args:
        spec: The backbone's declaration.
        model: The files of its model.

    Raises:
        RefusedBackboneError: LM205, the folder of the tokenizer has none.
    """
    source, options = tokenizer_files(spec, model)
    named = get_tokenizer_config(source, **options).get("tokenizer_class")
    generic = named in ("TokenizersBackend", "PreTrainedTokenizerFast")
    loader = PreTrainedTokenizerFast if generic else AutoTokenizer
    tokenizer: PreTrainedTokenizerBase = loader.from_pretrained(source, **options)
    if spec.chat_template is not None:
        tokenizer.chat_template = spec.chat_template
    elif not tokenizer.chat_template:
        tokenizer.chat_template = _processor_template(source, options)
    return tokenizer


def check_ids_fit(spec: Backbone, tokenizer: PreTrainedTokenizerBase, model: Any) -> None:
    """Check that a model has an embedding for each token of a tokenizer that is not its own.

    Raises:
        WeightsError: The tokenizer has more tokens.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    most = max(tokenizer.get_vocab().values(), default=0)
    if most >= rows:
        named = spec.tokenizer or "handed over"
        raise WeightsError(
            f"backbone {spec.source!r} has embeddings of {rows} tokens, but its tokenizer "
            f"({named}) has ids up to {most}; give the tokenizer that the model was trained with"
        )


def _processor_template(source: str, options: dict[str, Any]) -> str | None:
    """The chat template beside the tokenizer, as processors store it; None if there is none."""
    path = cached_file(
        source,
        PROCESSOR_TEMPLATE,
        revision=options.get("revision"),
        subfolder=options.get("subfolder", ""),
        _raise_exceptions_for_gated_repo=False,
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    if path is None:
        return None
    try:
        found = parse_json(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    template = found.get("chat_template") if isinstance(found, dict) else None
    return template if isinstance(template, str) else None
