"""Explanations of plans: against what runs do, and what they say."""

from __future__ import annotations

import importlib.util
import json
import runpy
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import latentmas as lm
from latentmas.backbones import LoadedBackbone, _growing
from latentmas.cli.app import app
from latentmas.engine import prefix as prefixes
from latentmas.generation import batch as decoding
from latentmas.plan import cost
from latentmas.plan.cost import Model
from latentmas.plan.reading import WORTHWHILE
from latentmas.testing import tiny_backbone
from tests import teams

GOLDEN: dict[str, Any] = runpy.run_path(str(Path(__file__).parent / "golden" / "rewrite.py"))
UNCOUNTED = lm.BackboneInfo(model_type="odd", hidden_size=16, vocab_size=64, num_layers=2)


# ── explanations against runs ─────────────────────────────────────────────────────────────────


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int, int, bool]]:
    """Every call of a model: source, rows, new positions, past ones, and whether it is cached."""
    made: list[tuple[str, int, int, int, bool]] = []
    step = LoadedBackbone.step

    def counted(
        self: LoadedBackbone, x: Any, positions: Any, mask: Any, state: Any = None, **more: Any
    ) -> Any:
        past = mask.shape[1] - x.shape[1]
        made.append((self.planned.spec.source, *x.shape[:2], past, state is not None))
        return step(self, x, positions, mask, state, **more)

    monkeypatch.setattr(LoadedBackbone, "step", counted)
    return made


@pytest.mark.parametrize(
    ("template", "family"),
    [(name, "llama") for name in ("sequential", "mixture", "distillation", "deliberation")]
    + [("sequential", "qwen3_5_text")],
)
def test_a_run_makes_the_calls_that_were_explained(template: str, family: str, calls: Any):
    rounds = 3 if template == "sequential" else 2
    plan = teams.of_template(template, family).replace(rounds=rounds).compile()
    system = plan.load()
    models = {
        b.spec.source: Model(b.info, b.info.costs, "float32") for b in plan.backbones.values()
    }
    explanation = system.explain(teams.QUESTIONS, "cpu")
    rollouts = [row for row in explanation.rows if row.op == "rollout"]
    for executor in ("cached", "reference"):
        calls.clear()
        result = system.run(teams.QUESTIONS, executor=executor)
        works = [models[c[0]].call(*c[1:4], cached=c[4]) for c in calls]
        rows = [row for row in explanation.rows if row.op != "transfer"]
        links = [plan.link(f"inner.{a}") for row in rollouts for a in row.agents]
        steps = [row.latent_steps - 1 for row in rollouts for _ in row.agents]
        inner = sum(link.n_parameters * k for link, k in zip(links, steps, strict=True))
        if executor == "cached":
            heads = [
                models[plan.backbones[plan.graph.agent(row.agents[0]).backbone].spec.source].head(3)
                for row in rows
                for _ in range(row.new_tokens)
            ]
            assert max(r.new_tokens for r in result.accounting) == 15  # nobody ended early
            flops = sum(row.flops for row in rows) - sum(h.flops for h in heads)
            read = sum(row.weight_bytes for row in rows) - sum(h.weight_bytes for h in heads)
            assert sum(w.flops for w in works) == pytest.approx(flops - 2 * 3 * inner)
            assert sum(w.weight_bytes for w in works) == pytest.approx(read - 4 * inner)
            said = sum(row.state_bytes for row in rows)
            assert sum(w.state_bytes for w in works) == pytest.approx(said)
        else:
            works = works[: -rows[-1].new_tokens]  # the answer comes last
            flops = sum(row.reference_flops for row in rollouts) - 2 * 3 * inner
            assert sum(w.flops for w in works) == pytest.approx(flops)


@pytest.fixture(scope="module")
def benchmark() -> Any:
    path = Path(__file__).parent.parent / "benchmarks" / "costs.py"
    spec = importlib.util.spec_from_file_location("costs_benchmark", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("executor", ["cached", "static"])
@pytest.mark.parametrize("family", ["llama", "qwen3_5_text"])
def test_memory_is_what_was_explained(family: str, executor: str, benchmark: Any):
    """Within 15 % of what live tensors hold, beside the weights."""
    sizes = {"hidden": 128, "layers": 4, "prompt": 256, "steps": 4, "batch": 7}
    samples = [f"What is {n} + {n}?" for n in range(7)]
    system = benchmark.chain(family, sizes)
    explanation = system.explain(samples, "cpu", executor=executor)
    assert explanation.executor == executor
    beside = explanation.weights + explanation.links
    measured = benchmark.peak_bytes(system, samples, "cpu", executor) - beside
    assert explanation.peak_memory - beside == pytest.approx(measured, rel=0.15)


def test_agents_on_one_backbone_run_as_one_batch():
    one = tiny_backbone("llama", 16)
    experts = {"math": one, "code": one}
    plan = lm.templates.mixture(experts=experts, summarizer=one, latent_steps=4).compile()
    rows = [row for row in plan.explain("cpu", batch=3).rows if row.op == "rollout"]
    assert [(row.agents, row.rows) for row in rows[:2]] == [
        (("math", "code"), 6),
        (("summarizer",), 3),
    ]


def test_one_batch_reuses_what_all_of_its_agents_read_again():
    one = tiny_backbone("llama", 16)
    graph = lm.Graph("branches", inputs=["question"], rounds=3, latent_steps=4)
    text = "Read it with care. " * 5 + "{{ question }}"
    for name, start in (("a", ""), ("b", "Be brief. ")):
        graph.add_agent(name, one, prompt=start + text + "{% if back %}{{ back }}{% endif %} go")
    graph.add_agent("all", one, prompt="{{ a }}{{ b }} go", max_new_tokens=3)
    for name in ("a", "b"):
        graph.connect(name, f"all.{name}")
        graph.feedback("all", f"{name}.back")
    system = graph.output("all").compile().load()
    rows = system.explain(["What is 1 + 1?", "What is 2 + 2?"], "cpu", executor="cached").rows
    rows = [row for row in rows if row.agents == ("a", "b")]
    assert [row.reused for row in rows] == [0, rows[1].reused, rows[1].reused]
    assert 0.8 * rows[1].positions < rows[1].reused < rows[1].positions


def test_numbers_that_the_runtime_has_too_are_the_same():
    assert WORTHWHILE == prefixes.WORTHWHILE
    assert (cost.AHEAD, cost.CHUNK) == (decoding.AHEAD, _growing.CHUNK)


# ── what it says ──────────────────────────────────────────────────────────────────────────────


def test_the_order_that_forbids_reuse_is_named():
    said = lm.templates.sequential_light().compile().explain(batch=32)
    assert [line.split()[0] for line in said.obstacles] == ["solver"]
    assert "reads its slot `plan` before `question`: 40 of about 198 positions" in said.obstacles[0]
    assert "put `question` first to reuse about 166" in said.obstacles[0]
    assert said.obstacles[0][:60] in str(said)
    mended = {"solver": "Question: {{ question }}\nPlan: {{ plan }}\nSolve it."}
    said = lm.templates.sequential_light(prompts=mended).compile().explain(batch=32)
    assert said.obstacles == ()
    assert said.rows[-1].op == "decode" and said.rows[-1].reused > 120


def test_sums_are_those_of_the_rows():
    said = (
        lm.templates.sequential_light(latent_steps=48)
        .compile()
        .explain(batch=32, input_tokens=136, max_new_tokens=2000)
    )
    assert said.seconds == pytest.approx(sum(row.seconds for row in said.rows))
    assert said.bytes == pytest.approx(sum(row.bytes for row in said.rows))
    assert said.peak_memory == max(row.memory for row in said.rows if row.op != "transfer")
    # Against the roofline of the study: about 0.41 s at 4.3 TB/s and 790 TFLOP/s, no reuse.
    slower = lm.Hardware("study", flops=790e12, bandwidth=4.3e12)
    again = lm.templates.sequential_light(latent_steps=48).compile()
    assert 0.3 < again.explain(slower, batch=32, input_tokens=136).latent_seconds < 0.45
    assert 20 < said.reference_ratio < 30 and said.reference_flops_ratio > 43
    assert json.loads(json.dumps(said.to_dict()))["seconds"] == said.seconds


def test_what_is_not_known_is_said_not_guessed():
    graph = lm.templates.sequential_light()
    plan = graph.compile(facts={"Qwen/Qwen2.5-Math-1.5B-Instruct": UNCOUNTED})
    said = plan.explain()
    assert said.seconds is said.flops is said.peak_memory is said.fits is said.weights is None
    assert said.reference_ratio is None
    assert [row.agents for row in said.rows if row.flops is None] == [("solver",)] * 3
    assert len(said.unknown) == 1 and "solver cannot be costed" in said.unknown[0]
    assert "Not known\n" in str(said) and "time        ?" in str(said)
    json.dumps(said.to_dict())


def test_a_prompt_that_needs_a_sample_is_said():
    one = tiny_backbone("llama", 16)
    graph = lm.Graph("loop", inputs=["number"], rounds=1, latent_steps=4)
    graph.add_agent("a", one, prompt="{{ number + 1 }}")
    graph.add_agent("b", one, prompt="{{ a }} {{ number }}", max_new_tokens=2)
    graph.connect("a", "b")
    plan = graph.output("b").compile()
    said = plan.explain("cpu")
    assert said.rows[0].positions is None and said.seconds is None
    assert said.unknown == (
        "the prompt of a cannot be rendered without a sample; system.explain(samples) counts it",
    )
    counted = plan.load().explain([{"number": 12}], "cpu")
    assert counted.unknown == () and counted.seconds > 0


def test_text_edges_and_outside_texts_are_estimated():
    one = tiny_backbone("llama", 16)
    graph = lm.Graph("talk", inputs=["question"], rounds=2, latent_steps=4)
    graph.add_text_source("notes", "a" * 400)
    graph.add_agent("a", one, prompt="{{ notes }}{{ question }}{% if b %}{{ b }}{% endif %}")
    graph.add_agent("b", one, prompt="{{ a }}{{ question }}", max_new_tokens=7)
    graph.connect("notes", "a")
    graph.connect("a", "b", link="text")
    graph.feedback("b", "a")
    plan = graph.output("b").compile()
    said = plan.explain("cpu", max_new_tokens=30, input_tokens=50)
    spoken = next(row for row in said.rows if row.agents == ("a",))
    assert (spoken.op, spoken.positions, spoken.new_tokens) == ("decode", 160, 30)
    heard = next(row for row in said.rows if row.agents == ("b",))
    assert heard.positions == 10 + 30 + 50
    counted = plan.load().explain(["What?"], "cpu", max_new_tokens=30)
    assert counted.seconds > 0


def test_offload_is_explained_with_its_largest_backbone_alone():
    plan = teams.sequential("llama").compile()
    all_at_once, in_turn = plan.explain("cpu"), plan.explain("cpu", executor="offload")
    weights = sorted(
        planned.info.costs.loaded_parameters * 4 for planned in plan.backbones.values()
    )
    assert (all_at_once.weights, in_turn.weights) == (sum(weights), weights[-1])
    assert in_turn.peak_memory < all_at_once.peak_memory
    assert any("largest backbone alone" in note for note in in_turn.notes)
    assert plan.load().explain(["What?"], "cpu", executor="offload").executor == "offload"


def test_arguments_are_checked():
    plan = lm.templates.sequential_light().compile()
    with pytest.raises(lm.UnknownNameError, match="did you mean 'h200'"):
        plan.explain("h20")
    with pytest.raises(lm.UnknownNameError, match="known: cached, static, cuda_graph"):
        plan.explain(executor="cashed")
    with pytest.raises(lm.LatentMASError, match="no flops for float64"):
        plan.explain(dtype="float64")
    with pytest.raises(lm.LatentMASError, match="above 0"):
        lm.Hardware("none", flops=0, bandwidth=1)
    with pytest.raises(lm.LatentMASError, match="batch is 0"):
        plan.explain(batch=0)
    with pytest.raises(lm.DataError, match="lacks the field 'question'"):
        plan.explain(input_tokens={"text": 3})
    small = plan.explain(lm.Hardware("small", flops=1e12, bandwidth=1e11, memory=2**30))
    assert small.fits is False and "does not suffice" in str(small)
    launched = lm.Hardware("eager", flops=1e15, bandwidth=1e13, launch=1e-3)
    first = plan.explain(launched).rows[0]
    assert first.call_seconds == pytest.approx(28e-3)  # Qwen3-1.7B has 28 layers


def test_old_plan_files_load_and_keep_their_digest():
    for name, plan in GOLDEN["plans"]().items():
        old = json.loads((GOLDEN["FOLDER"] / f"{name}.json").read_text())
        for backbone in old["backbones"].values():
            del backbone["info"]["costs"]
        loaded_plan = lm.Plan.from_json(json.dumps(old))
        assert loaded_plan == plan and loaded_plan.digest == plan.digest
        assert loaded_plan.diff(plan) == []
        assert loaded_plan.explain().unknown


def test_the_command_line_explains():
    run = CliRunner().invoke
    shown = run(app, ["plan", "sequential_light", "--hardware", "h200", "--batch", "32"])
    assert shown.exit_code == 0 and "a lower bound, not a forecast" in shown.stdout
    data = run(app, ["plan", "sequential_light", "--hardware", "l4", "--rounds", "1", "--json"])
    assert json.loads(data.stdout)["hardware"]["name"] == "l4"
    assert {row["round"] for row in json.loads(data.stdout)["rows"]} == {1}
    wrong = run(app, ["plan", "sequential_light", "--hardware", "h20"])
    assert wrong.exit_code == 2 and "did you mean 'h200'" in wrong.output


def test_the_table_in_the_docs_is_the_true_one():
    page = (Path(__file__).parent.parent / "docs" / "how-to" / "costs.md").read_text()
    shown = page.split("```text\n")[1].split("```")[0]
    plan = lm.templates.sequential_light().compile()
    assert str(plan.explain("h200", batch=32, max_new_tokens=2000)) == shown.rstrip()
