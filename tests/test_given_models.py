"""Models that are handed over as objects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, AutoTokenizer, BertConfig

import latentmas as lm
from latentmas.backbones import load_backbone
from tests.teams import tiny

QUESTIONS = ["What is 3 + 4?", "x"]
PATH = tiny("llama", 16).source


def objects(folder: str = PATH, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model, AutoTokenizer.from_pretrained(folder)


def team(source: str = "given:mine", **fields: Any) -> lm.Graph:
    backbone = lm.Backbone(source, **fields)
    graph = lm.Graph("pair", inputs=["question"], rounds=2, latent_steps=2)
    graph.add_agent("one", backbone, prompt="{% if back %}{{ back }}{% endif %}{{ question }}")
    graph.add_agent("two", backbone, prompt="{{ one }} {{ question }}", max_new_tokens=4)
    graph.connect("one", "two", link="recursive")
    graph.feedback("two", "one.back", link="recursive")
    return graph.output("two")


def answers(system: lm.System) -> Any:
    return system.run(QUESTIONS, record=("messages",))


def test_it_runs_as_the_folder_that_it_came_from() -> None:
    given = objects()
    plan = team().compile(models={"mine": given})
    assert (
        plan.backbones["given-mine"].info
        == next(iter(team(PATH).compile().backbones.values())).info
    )
    system = plan.load()
    assert system.backbone_of("one") is system.backbone_of("two")
    assert system.backbone_of("one").model is given[0]
    found, wanted = answers(system), answers(team(PATH).compile().load())
    assert found.token_ids == wanted.token_ids
    for name, message in wanted.messages.items():
        # Up to rounding: the weights of an object are left in their layout.
        assert float((found.messages[name] - message).abs().max() / message.abs().max()) < 1e-5
    assert not any(weight.requires_grad for weight in given[0].parameters())


def test_a_saved_team_asks_for_it_again(tmp_path: Path) -> None:
    system = team().compile(models={"mine": objects()}).load()
    system.save_pretrained(tmp_path)
    assert 'models={"mine": (model, tokenizer)}' in (tmp_path / "README.md").read_text()
    assert not list(tmp_path.rglob("model*.safetensors"))
    with pytest.raises(lm.WeightsError, match=r"LM207.*models=\{'mine': \(model, tokenizer\)\}"):
        lm.System.from_pretrained(tmp_path)
    again = lm.System.from_pretrained(tmp_path, models={"mine": objects()})
    assert answers(again).token_ids == answers(system).token_ids
    beside = lm.System.from_pretrained(tmp_path, reuse=system)
    assert beside.backbone_of("one") is system.backbone_of("one")


def test_a_saved_team_refuses_another_width(tmp_path: Path) -> None:
    team().compile(models={"mine": objects()}).load().save_pretrained(tmp_path)
    wide = objects(tiny("llama", 32).source)
    with pytest.raises(lm.WeightsError, match=r"LM501(.|\n)*hidden_size 16 -> 32"):
        lm.System.from_pretrained(tmp_path, models={"mine": wide})


def test_plans_keep_it_and_files_do_not(tmp_path: Path) -> None:
    plan = team().compile(models={"mine": objects()})
    assert plan.replace(rounds=3).load().plan.graph.rounds == 3
    read = lm.Plan.open(plan.save(tmp_path / "plan.json"))
    assert read == plan
    with pytest.raises(lm.WeightsError, match="LM207"):
        read.load()
    assert answers(read.load(models={"mine": objects()})).token_ids


def test_text_twins_share_it() -> None:
    system = team().compile(models={"mine": objects()}).load()
    twin = system.text_twin(max_new_tokens=3)
    assert twin.backbone_of("two") is system.backbone_of("two")


def test_it_keeps_its_type_and_its_tokenizer() -> None:
    model, tokenizer = objects(dtype=torch.float64)
    before = tokenizer.chat_template
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    plan = team(chat_template=template).compile(models={"mine": (model, tokenizer)})
    system = plan.load()
    assert system.backbone_of("one").dtype == torch.float64
    assert system.backbone_of("one").tokenizer.chat_template == template
    assert tokenizer.chat_template == before
    with pytest.raises(lm.WeightsError, match=r"LM207.*float32.*model\.to"):
        plan.load(dtype="float32")


def test_what_is_wrong_is_said_at_compile() -> None:
    with pytest.raises(lm.GraphError) as caught:
        team().compile()
    (problem,) = caught.value.problems
    assert (problem.code, problem.path) == ("LM207", "backbone given-mine")
    assert problem.hint == "pass models={'mine': (model, tokenizer)}"
    with pytest.raises(lm.GraphError, match=r"LM101.*models 'min'.*\n.*did you mean 'given:mine'"):
        team().compile(models={"mine": objects(), "min": objects()})
    for fields, word in (
        ({"dtype": "float32"}, "remove dtype; convert the model"),
        ({"quantization": "bitsandbytes:nf4"}, "remove quantization"),
        ({"revision": "main", "attention": "sdpa"}, "remove revision(.|\n)*remove attention"),
    ):
        with pytest.raises(lm.GraphError, match=f"LM204(.|\n)*{word}"):
            team(**fields).compile(models={"mine": objects()})


@pytest.mark.parametrize("value", ["gpt2", (1, 2), (None,)])
def test_what_is_not_a_model_with_its_tokenizer_is_refused(value: Any) -> None:
    with pytest.raises(TypeError, match=r"models\['mine'\] is .*\(model, tokenizer\)"):
        team().compile(models={"mine": value})


def test_an_encoder_is_refused() -> None:
    config = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2)
    bert = AutoModelForMaskedLM.from_config(config)
    with pytest.raises(lm.GraphError, match=r"LM202.*an encoder"):
        team().compile(models={"mine": (bert, objects()[1])})


def test_a_tokenizer_with_more_tokens_than_the_model_is_refused() -> None:
    model, tokenizer = objects()
    tokenizer.add_tokens(["<one_more>"])
    with pytest.raises(lm.WeightsError, match=r"embeddings of 260 tokens.*ids up to 260"):
        team().compile(models={"mine": (model, tokenizer)}).load()


def test_a_plan_without_it_cannot_be_loaded_below_either() -> None:
    (planned,) = team().compile(models={"mine": objects()}).backbones.values()
    with pytest.raises(lm.WeightsError, match="LM207"):
        load_backbone(planned)
