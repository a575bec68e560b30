"""Steps in OpenVINO give what the other executors give."""

from __future__ import annotations

import gc
import subprocess
import sys
import weakref
from importlib.util import find_spec
from typing import Any

import pytest
import torch

import latentmas as lm
from latentmas.backbones import OpenVINOStep, openvino_step
from latentmas.engine import executors
from latentmas.errors import LatentMASError
from latentmas.testing import tiny_backbone
from latentmas.training.losses.outer import OuterLoss
from tests.teams import QUESTIONS, of_template

pytestmark = pytest.mark.skipif(
    find_spec("openvino") is None, reason="the extra openvino is not installed"
)

FAMILIES = ("llama", "qwen2", "qwen3")
CLOSE = 1e-4
"""Relative, fp32: the largest difference of messages was 4e-6."""


def team(spec: lm.Backbone, **options: Any) -> lm.System:
    graph = lm.Graph("pair", inputs=["question"], rounds=2, latent_steps=5)
    graph.add_agent(
        "one",
        spec,
        prompt="Think of {{ question }}{% if two %} {{ two }}{% endif %}",
        inner="recursive",
    )
    graph.add_agent(
        "two",
        spec,
        prompt="{{ one }} Answer {{ question }}",
        inner="recursive",
        max_new_tokens=9,
    )
    graph.connect("one", "two", link="recursive")
    graph.feedback("two", "one", link="recursive")
    return graph.output("two").compile().load(**options)


def run(system: lm.System, executor: str, **options: Any) -> Any:
    return system.run(QUESTIONS, executor=executor, record=("messages",), **options)


def check_close(found: Any, wanted: Any, limit: float = CLOSE) -> None:
    assert found.messages.keys() == wanted.messages.keys()
    for name, message in wanted.messages.items():
        apart = (found.messages[name] - message).abs().max() / message.abs().max()
        assert apart < limit, name


@pytest.mark.parametrize("family", FAMILIES)
def test_messages_and_tokens_are_those_of_the_reference(family: str) -> None:
    system = team(tiny_backbone(family, 64), dtype="float32", seed=1)
    wanted, found = run(system, "reference"), run(system, "openvino")
    assert isinstance(openvino_step(system.backbone_of("one")), OpenVINOStep)
    check_close(found, wanted)
    assert found.token_ids == wanted.token_ids
    one = system.run(QUESTIONS[:1], executor="openvino")
    assert one.token_ids == wanted.token_ids[:1], "batches equal singles"


@pytest.mark.parametrize("template", ["mixture", "deliberation"])
def test_teams_of_several_widths(template: str) -> None:
    system = of_template(template, "llama").compile().load(dtype="float32")
    wanted, found = run(system, "cached"), run(system, "openvino")
    check_close(found, wanted)
    assert found.token_ids == wanted.token_ids


def test_rows_that_end_leave_and_others_join() -> None:
    system = team(tiny_backbone("llama", 64), dtype="float32")
    samples = [question * (1 + i % 3) for i, question in enumerate(QUESTIONS * 4)]
    options: dict[str, Any] = {
        "batch_size": 4,
        "refill_threshold": 0.5,
        "stop": list("etaoinshrdlu"),
        "max_new_tokens": 40,
        "do_sample": True,
        "seed": 5,
    }
    wanted = system.run(samples, executor="cached", **options)
    found = system.run(samples, executor="openvino", **options)
    assert found.token_ids == wanted.token_ids
    assert len({len(ids) for ids in wanted.token_ids}) > 2, "rows end at different times"


def test_several_samples_of_a_row() -> None:
    system = team(tiny_backbone("qwen2", 64), dtype="float32")
    options: dict[str, Any] = {
        "num_return_sequences": 3,
        "do_sample": True,
        "temperature": 0.7,
        "seed": 3,
    }
    wanted = system.run(QUESTIONS, executor="cached", **options)
    assert system.run(QUESTIONS, executor="openvino", **options).token_ids == wanted.token_ids


def test_bfloat16() -> None:
    system = team(tiny_backbone("llama", 64), dtype="bfloat16")
    wanted, found = run(system, "cached"), run(system, "openvino")
    check_close(found, wanted, 0.1)
    again = run(system, "openvino")
    assert again.token_ids == found.token_ids


def test_memory_is_used_again() -> None:
    system = team(tiny_backbone("llama", 64), dtype="float32")
    run(system, "openvino")
    step = openvino_step(system.backbone_of("one"))
    assert isinstance(step, OpenVINOStep)
    idle = len(step._idle)
    assert idle > 0
    run(system, "openvino")
    assert len(step._idle) == idle
    assert openvino_step(system.backbone_of("one")) is step


def test_memory_is_freed_with_the_system() -> None:
    system = team(tiny_backbone("llama", 64), dtype="float32")
    run(system, "openvino")
    step = weakref.ref(openvino_step(system.backbone_of("one")))
    assert step() is not None
    gc.disable()
    try:
        for backbone in system.agent_backbones.values():
            backbone.workspace.clear()
        assert step() is None
    finally:
        gc.enable()


def test_a_failing_conversion_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from latentmas.backbones.openvino import step

    def fail(*_: Any) -> Any:
        raise RuntimeError("Unsupported operation aten::new\nand more")

    monkeypatch.setattr(step, "stateful_model", fail)
    system = team(tiny_backbone("llama", 32), dtype="float32")
    with pytest.warns(UserWarning, match="cannot convert it: Unsupported operation aten::new$"):
        system.run(QUESTIONS, executor="openvino")


def test_hooked_modules_run() -> None:
    system = team(tiny_backbone("llama", 64), dtype="float32")
    wanted, called = run(system, "openvino"), list[int]()
    layer = system.backbone_of("one").model.get_decoder().layers[0].mlp
    hook = layer.register_forward_hook(lambda *_: called.append(1))
    found = run(system, "openvino")
    hook.remove()
    assert len(called) > 2 * (5 + 5)
    check_close(found, wanted)


def test_trainings_take_the_way_with_gradients() -> None:
    system = team(tiny_backbone("llama", 64), dtype="float32", seed=2)
    found = []
    for name in ("cached", "openvino"):
        system.links.zero_grad(set_to_none=True)
        loss = OuterLoss(system, system.plan, executor=name)
        loss([{"question": "a", "answer": "b"}])["loss"].backward()
        found.append([p.grad for p in system.links.parameters()])
    assert found[0]
    for a, b in zip(*found, strict=True):
        assert a is not None
        assert b is not None
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("spec", "dtype", "why"),
    [
        (lambda: tiny_backbone("gemma3_text", 32), "float32", "do not attend to all positions"),
        (lambda: tiny_backbone("llama", 32), "float64", "float32 and bfloat16 are converted"),
        (lambda: tiny_backbone("qwen3_5_text", 32, layers=4), "float32", "do not attend to all"),
    ],
)
def test_others_run_as_cached_with_the_reason(spec: Any, dtype: str, why: str) -> None:
    system = team(spec(), dtype=dtype)
    with pytest.warns(UserWarning, match=f"runs without OpenVINO.*{why}") as told:
        found = system.run(QUESTIONS, executor="openvino")
    assert len([one for one in told if "OpenVINO" in str(one.message)]) == 1, "once a backbone"
    assert found.token_ids == system.run(QUESTIONS, executor="cached").token_ids


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from latentmas.backbones.openvino import package

    monkeypatch.setattr(package, "find_spec", lambda name: None)
    system = team(tiny_backbone("llama", 32), dtype="float32")
    with pytest.raises(LatentMASError, match=r"pip install 'latentmas\[openvino\]'"):
        system.run(QUESTIONS, executor="openvino")


def test_nothing_is_reported_to_the_makers_of_the_library() -> None:
    told = (
        "import sys; from latentmas.backbones.openvino.package import import_openvino; "
        "import_openvino(); print('openvino' in sys.modules, 'openvino_telemetry' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.split() == ["True", "False"]


def test_it_is_an_executor_by_name() -> None:
    assert executors.get("openvino").name == "openvino"
