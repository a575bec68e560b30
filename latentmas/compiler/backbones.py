"""Checks of declared backbones that need neither their files nor their weights."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath

from jinja2 import TemplateError

from latentmas.errors import Problem, closest
from latentmas.prompts import check_chat_template_text
from latentmas.spec import Backbone, GraphSpec, refused_arguments

__all__ = ["backbone_problems"]

ATTENTION = ("eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention")
"""Implementations that transformers always knows; others are looked up."""
OF_FILES = (
    *("revision", "subfolder", "quantization", "tokenizer", "trust_remote_code", "attention"),
    "load",
)
"""Fields that choose or change what is read from files."""


def backbone_problems(graph: GraphSpec) -> list[Problem]:
    """LM204 and LM205 problems of all declared backbones."""
    return [problem for key, spec in graph.backbones.items() for problem in _problems(key, spec)]


def _problems(key: str, spec: Backbone) -> Iterator[Problem]:
    where = f"backbone {key}"
    if spec.given:
        yield from _of_given(where, spec)
        return
    if spec.source.endswith(".gguf"):
        yield from _of_gguf(where, spec)
    yield from _of_attention(where, spec)
    yield from _of_quantization(where, spec)
    yield from _of_subfolder(where, spec)
    yield from _of_template(where, spec)
    for name, instead in refused_arguments(spec.load):
        yield Problem("LM204", where, f"load does not take {name!r}", f"remove it; {instead}")


def _of_given(where: str, spec: Backbone) -> Iterator[Problem]:
    written = spec.model_dump(exclude_defaults=True)
    for name in OF_FILES:
        if name in written:
            message = f"{name} is declared for {spec.source!r}, which is handed over as an object"
            yield Problem("LM204", where, message, f"remove {name}; apply it to the model itself")
    if spec.dtype != "auto":
        message = f"dtype is {spec.dtype!r}, but {spec.source!r} is handed over with its own type"
        yield Problem("LM204", where, message, "remove dtype; convert the model with model.to(…)")
    yield from _of_template(where, spec)


def _of_gguf(where: str, spec: Backbone) -> Iterator[Problem]:
    instead = {
        "quantization": "remove it: the file is unpacked to full weights, once; or quantise the "
        "checkpoint that the file was made from",
        "subfolder": "give the whole path of the file as source",
    }
    for name, hint in instead.items():
        if getattr(spec, name) is not None:
            yield Problem("LM204", where, f"a GGUF file does not take {name}", hint)


def _of_attention(where: str, spec: Backbone) -> Iterator[Problem]:
    wanted = spec.attention
    if wanted is None or wanted in ATTENTION or "/" in wanted:  # kernels of the hub have a slash
        return
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    known = [*dict.fromkeys((*ATTENTION, *ALL_ATTENTION_FUNCTIONS.valid_keys()))]
    known = [name for name in known if not name.startswith("paged|")]
    if wanted in known:
        return
    guess = closest(wanted, known)
    message = f"unknown attention {wanted!r}; transformers has {', '.join(known)}"
    hint = f"did you mean {guess!r}?" if guess else "choose one of these, or leave it out"
    yield Problem("LM204", where, message, hint)


def _of_quantization(where: str, spec: Backbone) -> Iterator[Problem]:
    if spec.quantization is not None and spec.dtype == "float64":
        message = f"quantization {spec.quantization.kind!r} does not go with dtype 'float64'"
        yield Problem("LM204", where, message, 'choose dtype="bfloat16" or dtype="float32"')


def _of_subfolder(where: str, spec: Backbone) -> Iterator[Problem]:
    if spec.subfolder is None:
        return
    path = PurePosixPath(spec.subfolder)
    if path.is_absolute() or ".." in path.parts or "\0" in spec.subfolder:
        message = f"subfolder {spec.subfolder!r} is not a path below the source"
        yield Problem("LM204", where, message, "give a relative path without `..`")


def _of_template(where: str, spec: Backbone) -> Iterator[Problem]:
    if spec.chat_template is None:
        return
    try:
        check_chat_template_text(spec.chat_template)
    except TemplateError as error:
        line = getattr(error, "lineno", None)
        at = f"line {line}: " if line else ""
        message = f"the chat template does not parse: {at}{error.message or error}"
        yield Problem("LM205", where, message, "correct the Jinja syntax of chat_template")
