"""Facts about a backbone from its configuration: no weights, no network for local folders."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from latentmas.backbones._known import KNOWN
from latentmas.backbones.adapters.config import AdapterError
from latentmas.backbones.adapters.facts import read_adapter
from latentmas.backbones.loading.files import Files, files_of, resolve_source, tokenizer_files
from latentmas.backbones.loading.gguf import gguf_config, is_gguf
from latentmas.backbones.loading.refusals import RefusedBackboneError
from latentmas.errors import WeightsError
from latentmas.plan import BackboneCosts, BackboneInfo, QuantizedCosts
from latentmas.spec import Backbone

__all__ = ["info_of", "read_info", "with_adapter_facts"]


def read_info(backbone: Backbone) -> BackboneInfo:
    """Read a backbone's configuration; the facts of the paper's models ship with the package.

    Raises:
        RefusedBackboneError: The declaration asks for what cannot be done with this model or on
            this machine.
        AdapterError: Its adapter cannot be used.
        WeightsError: The configuration cannot be found or read (the message says why), the model is
            not a decoder, or its sizes exceed those of any known model.
    """
    if backbone.given:
        raise _not_given(backbone.source, backbone.given)
    quantization = backbone.quantization
    if quantization is not None:
        from latentmas.backbones.loading.libraries import check_library

        check_library(quantization)
    files = files_of(backbone)
    tokenizer_files(backbone, files)
    plain = backbone.revision is None and backbone.subfolder is None and not backbone.load
    if files.source in KNOWN and plain:
        return with_adapter_facts(backbone, _quantized(KNOWN[files.source], backbone))
    try:
        config = _config(backbone, files)
    except WeightsError:
        raise
    except Exception as error:  # each model's configuration class may raise any exception
        reason = str(error).strip().splitlines()[0] if str(error).strip() else repr(error)
        raise WeightsError(f"no configuration for {files.source!r}: {reason}") from error
    if quantization is not None:
        from latentmas.backbones.loading.quantization import check_not_quantized

        check_not_quantized(quantization, config)
    info = info_of(files.source, config, backbone)
    part = None if info.costs is None else info.costs.quantized
    if quantization is not None and part is not None and not part.body_parameters:
        raise RefusedBackboneError(
            "LM204",
            f"quantization {quantization.kind!r} changes linear layers, and "
            f"{config.model_type} has none",
            "leave quantization out, or choose another model",
        )
    return with_adapter_facts(backbone, info, config)


def with_adapter_facts(backbone: Backbone, info: BackboneInfo, config: Any = None) -> BackboneInfo:
    """Facts about a backbone with those about its adapter, which are read if they are missing.

    Args:
        backbone: The backbone.
        info: Facts about its model.
        config: Configuration of its model; None: the adapter's modules are checked by `load`.

    Raises:
        AdapterError: The adapter cannot be used.
    """
    if (backbone.adapter is None) == (info.adapter is None):
        return info
    found = None
    if backbone.adapter is not None:
        try:
            resolved = resolve_source(backbone.adapter)
        except WeightsError as error:
            hint = "give the folder or the hub id of a LoRA adapter that PEFT saved"
            raise AdapterError(f"adapter: {error}", hint) from error
        found = read_adapter(backbone, resolved, config)
    return info.model_copy(update={"adapter": found})


def info_of(source: str, config: Any, backbone: Backbone) -> BackboneInfo:
    """The facts that a configuration states.

    Args:
        source: Name of the model in messages.
        config: The model's configuration.
        backbone: The model's declaration.

    Raises:
        UnsuitableBackboneError: The model is not a decoder.
        WeightsError: A size is invalid.
    """
    from latentmas.backbones._costs import measure_costs
    from latentmas.backbones.loading.classes import check_decoder

    check_decoder(source, config)
    text = config.get_text_config(decoder=True)
    try:
        return BackboneInfo(
            model_type=text.model_type,
            hidden_size=text.hidden_size,
            vocab_size=text.vocab_size,
            num_layers=text.num_hidden_layers,
            max_positions=getattr(text, "max_position_embeddings", None),
            costs=measure_costs(
                config,
                family=backbone.family,
                trust_remote_code=backbone.trust_remote_code,
                quantization=backbone.quantization,
            ),
        )
    except ValidationError as error:
        wrong = "; ".join(f"{item['loc'][0]}: {item['msg']}" for item in error.errors())
        raise WeightsError(f"the configuration of {source!r} is invalid: {wrong}") from error


def _quantized(info: BackboneInfo, backbone: Backbone) -> BackboneInfo:
    """Facts that ship with the package, for quantised weights.

    Norms are counted as quantised, and the other parts of image-text models as not quantised.
    """
    costs, quantization = info.costs, backbone.quantization
    if costs is None or quantization is None:
        return info
    count = costs.body_parameters
    part = QuantizedCosts(bits=quantization.bits, body_parameters=count, loaded_parameters=count)
    fields = costs.model_dump() | {"quantized": part}
    return info.model_copy(update={"costs": BackboneCosts(**fields)})


def _config(backbone: Backbone, files: Files) -> Any:
    from latentmas.backbones.loading.config import read_config
    from latentmas.backbones.loading.sizes import (
        judge_sizes,  # imported late: it imports transformers
    )

    if not is_gguf(files.source):
        return read_config(files, backbone.load)
    config = gguf_config(files.source)
    judge_sizes(files.source, config.to_dict())
    return config


def _not_given(source: str, name: str) -> WeightsError:
    return RefusedBackboneError(
        "LM207",
        f"{source!r} is a model that is handed over as an object, and none is",
        f"pass models={{{name!r}: (model, tokenizer)}}",
        "load the graph in Python and pass models={…} to compile",
    )
