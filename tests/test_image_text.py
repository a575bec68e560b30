"""Image-text models serve by their text bodies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageTextToText

import latentmas as lm
from latentmas.testing._tiny import tokenizer_of_bytes
from tests.image_text import PLAIN_TYPES, tiny_config, write_pair

QUESTIONS = ["What is 3 + 4?", "x"]


def pair(folder: Path, **fields: Any) -> lm.Graph:
    backbone = lm.Backbone(str(folder), **fields)
    graph = lm.Graph("pair", inputs=["question"], rounds=2, latent_steps=2)
    graph.add_agent("one", backbone, prompt="{% if back %}{{ back }}{% endif %}{{ question }}")
    graph.add_agent("two", backbone, prompt="{{ one }} {{ question }}", max_new_tokens=4)
    graph.connect("one", "two", link="recursive")
    graph.feedback("two", "one.back", link="recursive")
    return graph.output("two")


@pytest.mark.parametrize("model_type", PLAIN_TYPES)
def test_messages_are_those_of_the_plain_text_model(model_type: str, tmp_path: Path) -> None:
    results = []
    for folder in write_pair(model_type, tmp_path):
        system = pair(folder).compile().load(dtype="float64")
        for executor in ("reference", "cached"):
            results.append(system.run(QUESTIONS, executor=executor, record=("messages",)))
    whole_slow, whole, _, plain = results
    assert whole.token_ids == plain.token_ids == whole_slow.token_ids
    for name, message in plain.messages.items():
        for other in (whole, whole_slow):
            assert (other.messages[name] - message).abs().max() / message.abs().max() < 1e-5, name


def test_facts_are_those_of_the_text_body_and_weights_those_of_the_whole(tmp_path: Path) -> None:
    folder, _ = write_pair("llava", tmp_path)
    plan = pair(folder).compile()
    (planned,) = plan.backbones.values()
    assert planned.info.model_type == "llama"
    assert planned.info.hidden_size == 32
    model = plan.load().backbone_of("one").model
    count = sum(weight.numel() for weight in model.parameters())
    assert planned.info.costs is not None
    assert planned.info.costs.loaded_parameters == count
    assert "vision" in " ".join(name for name, _ in model.named_parameters())


LOOP = (
    "{% for part in message['content'] %}{% if part['type'] == 'text' %}{{ part['text'] }}"
    "{% elif part['type'] == 'image' %}<image>{% endif %}{% endfor %}"
)
TEMPLATE_OF_PARTS = (
    "{% for message in messages %}{{ message['role'] }}:" + LOOP + ";{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
"""As that of SmolVLM: each content is a list of parts."""


def test_templates_that_read_parts_and_are_kept_with_the_processor(tmp_path: Path) -> None:
    folder, _ = write_pair("smolvlm", tmp_path)
    (folder / "chat_template.jinja").unlink()
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": TEMPLATE_OF_PARTS}))
    of_text = TEMPLATE_OF_PARTS.replace(LOOP, "{{ message['content'] }}")
    assert LOOP in TEMPLATE_OF_PARTS
    found, wanted = (
        pair(folder, **fields).compile().load().run(QUESTIONS, record=("messages",))
        for fields in ({}, {"chat_template": of_text})
    )
    assert found.token_ids == wanted.token_ids
    for name, message in wanted.messages.items():
        assert torch.equal(found.messages[name], message)


def test_a_model_that_attends_to_its_whole_prompt_is_refused(tmp_path: Path) -> None:
    """PaliGemma's prompt is read in both directions."""
    config = tiny_config("paligemma")
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    model.save_pretrained(tmp_path)
    tokenizer_of_bytes().save_pretrained(tmp_path)
    with pytest.raises(lm.WeightsError, match="padded on the left"):
        pair(tmp_path).compile().load()


@pytest.mark.parametrize(
    ("model_type", "words"),
    [
        ("bert", "an encoder: each of its positions attends to later ones"),
        ("roberta", "an encoder"),
        ("clip_text_model", "transformers has no causal model of that type"),
        ("t5", "is t5, not a decoder"),
    ],
)
def test_what_is_not_a_decoder_is_refused_at_compile(
    model_type: str, words: str, tmp_path: Path
) -> None:
    AutoConfig.for_model(model_type).save_pretrained(tmp_path)
    with pytest.raises(lm.GraphError, match=f"LM202.*{words}"):
        pair(tmp_path).compile()


def test_an_encoder_that_is_declared_a_decoder_serves(tmp_path: Path) -> None:
    AutoConfig.for_model("bert", is_decoder=True).save_pretrained(tmp_path)
    assert pair(tmp_path).compile().backbones
