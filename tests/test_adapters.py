"""Teams in other harnesses: requests that run together give what they give alone."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
import threading
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import latentmas as lm
from latentmas.evaluation.adapters._batcher import MicroBatcher
from latentmas.evaluation.adapters._team import Seeds, check_input, read_options, sampled
from latentmas.plan import RunOptions
from latentmas.testing import tiny_backbone

# Sampled: the most likely tokens of a random model are the same for every prompt.
DRAWN = RunOptions(max_new_tokens=6, do_sample=True, temperature=1.5)
needs_inspect = pytest.mark.skipif(
    importlib.util.find_spec("inspect_ai") is None, reason="inspect-ai is not installed"
)
needs_lm_eval = pytest.mark.skipif(
    importlib.util.find_spec("lm_eval") is None, reason="lm-eval is not installed"
)


def team_graph() -> lm.Graph:
    tiny = tiny_backbone("qwen3", 32)
    graph = lm.Graph("pair", inputs=["question"], rounds=1, latent_steps=2)
    graph.add_agent("reader", tiny, prompt="Read: {{ question }}")
    graph.add_agent("writer", tiny, prompt="{{ reader }} {{ question }}", max_new_tokens=8)
    graph.connect("reader", "writer")
    return graph.output("writer")


@pytest.fixture(scope="module")
def system() -> lm.System:
    return team_graph().compile().load(dtype="float64")


@pytest.fixture
def batcher(system: lm.System):
    made = MicroBatcher(system, batch_size=8, wait=0.05)
    yield made
    made.close()


def alone(system: lm.System, question: str, options: RunOptions, seed: int) -> str:
    return system.run([question], options=options, seed=(seed,)).text


class Watched:
    """A system that notes the size of each batch, and waits until it is let go."""

    def __init__(self, system: lm.System) -> None:
        self.system, self.sizes = system, list[int]()
        self.started, self.go = threading.Event(), threading.Event()

    def run(self, samples: Any, **options: Any) -> Any:
        self.sizes.append(len(samples))
        self.started.set()
        assert self.go.wait(600)
        return self.system.run(samples, **options)


# ── the micro-batcher ─────────────────────────────────────────────────────────────────────────


def test_requests_of_many_threads_equal_single_runs(system, batcher):
    questions = [f"{n} + {n * n}?" for n in range(12)]

    def ask(number: int) -> str:
        asked = DRAWN.replace(seed=number)
        return batcher.submit({"question": questions[number]}, asked).result(600).texts[0]

    with ThreadPoolExecutor(12) as pool:
        texts = list(pool.map(ask, range(12)))
    assert texts == [alone(system, q, DRAWN, n) for n, q in enumerate(questions)]
    assert len(set(texts)) == 12


def test_requests_of_coroutines_share_batches(system):
    watched = Watched(system)
    watched.go.set()
    batcher = MicroBatcher(watched, batch_size=4, wait=600)  # a whole batch waits for nobody

    async def ask_all() -> list[str]:
        futures = [batcher.submit({"question": f"{n}?"}, DRAWN) for n in range(8)]
        ends = await asyncio.gather(*map(asyncio.wrap_future, futures))
        return [end.texts[0] for end in ends]

    texts = asyncio.run(ask_all())
    batcher.close()
    assert watched.sizes == [4, 4]
    assert texts == [alone(system, f"{n}?", DRAWN, 0) for n in range(8)]


def test_requests_with_other_options_run_apart(system):
    watched = Watched(system)
    batcher = MicroBatcher(watched, batch_size=8, wait=0.0)
    short = DRAWN.replace(max_new_tokens=2)
    batcher.submit({"question": "first"}, DRAWN)
    assert watched.started.wait(600)  # the others wait for it together
    futures = [batcher.submit({"question": f"{n}?"}, short if n % 2 else DRAWN) for n in range(8)]
    watched.go.set()
    ends = [future.result(600) for future in futures]
    batcher.close()
    assert watched.sizes == [1, 4, 4]
    assert [len(end.token_ids[0]) <= 2 for end in ends[1::2]] == [True] * 4
    expected = [alone(system, f"{n}?", DRAWN, 0) for n in range(0, 8, 2)]
    assert [end.texts[0] for end in ends[::2]] == expected


def test_an_error_in_one_request_does_not_hurt_the_others(system, batcher):
    samples = [{"question": "1?"}, {"qestion": "2?"}, {"question": "3?"}]
    futures = [batcher.submit(sample, DRAWN) for sample in samples]
    with pytest.raises(lm.DataError, match="question"):
        futures[1].result(600)
    texts = [futures[n].result(600).texts[0] for n in (0, 2)]
    assert texts == [alone(system, q, DRAWN, 0) for q in ("1?", "3?")]


def test_options_that_a_team_cannot_take_fail_alone(system, batcher):
    wrong = batcher.submit({"question": "1?"}, DRAWN.replace(latent_steps=0))
    right = batcher.submit({"question": "1?"}, DRAWN)
    with pytest.raises(lm.GraphError):
        wrong.result(600)
    assert right.result(600).texts == (alone(system, "1?", DRAWN, 0),)


def test_a_cancelled_request_is_not_run(system):
    watched = Watched(system)
    batcher = MicroBatcher(watched, batch_size=8, wait=0.0)
    first = batcher.submit({"question": "1?"}, DRAWN)
    assert watched.started.wait(600)
    second, third = (batcher.submit({"question": f"{n}?"}, DRAWN) for n in (2, 3))
    assert second.cancel() and not first.cancel()
    watched.go.set()
    assert third.result(600).texts == (alone(system, "3?", DRAWN, 0),)
    assert first.result(600).texts == (alone(system, "1?", DRAWN, 0),)
    assert watched.sizes == [1, 1]
    batcher.close()


def test_closing_withdraws_what_waits_and_finishes_what_runs(system):
    watched = Watched(system)
    batcher = MicroBatcher(watched, batch_size=8, wait=0.0)
    running = batcher.submit({"question": "1?"}, DRAWN)
    assert watched.started.wait(600)
    waiting: Future[Any] = batcher.submit({"question": "2?"}, DRAWN)
    closing = threading.Thread(target=batcher.close)
    closing.start()
    with pytest.raises(CancelledError):
        waiting.result(600)
    watched.go.set()
    closing.join(600)
    assert running.result(0).texts == (alone(system, "1?", DRAWN, 0),)
    with pytest.raises(lm.LatentMASError, match="closed"):
        batcher.submit({"question": "3?"}, DRAWN)


# ── settings ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((None, None, None, None), {"do_sample": False}),
        ((None, 0.0, 0.9, None), {"do_sample": False}),
        ((False, 1.0, 0.9, 5), {"do_sample": False}),
        ((None, 0.7, None, -1), {"do_sample": True, "temperature": 0.7}),
        ((True, None, 0.9, 5), {"do_sample": True, "top_p": 0.9, "top_k": 5}),
    ],
)
def test_sampling_settings_of_harnesses(given, expected):
    assert sampled(*given) == expected


def test_model_arguments():
    assert read_options("latentmas", {"rounds": 2}, ("input",)).rounds == 2
    with pytest.raises(TypeError, match="rounds"):
        read_options("latentmas", {"runds": 2}, ("input",))
    with pytest.raises(lm.LatentMASError, match="seed"):
        read_options("latentmas", {"seed": [1, 2]}, ("input",))


def test_the_input_that_takes_the_prompt(system):
    assert check_input(system, None) == check_input(system, "question") == "question"
    with pytest.raises(lm.UnknownNameError, match="question"):
        check_input(system, "qestion")


def test_seeds_do_not_depend_on_the_order_of_prompts():
    one, two = Seeds(0), Seeds(0)
    first = [one.next("a"), one.next("b"), one.next("a")]
    second = [two.next("b"), two.next("a"), two.next("a")]
    assert sorted(first) == sorted(second) and len(set(first)) == 3
    assert Seeds(1).next("a") != first[0]


@pytest.mark.parametrize(
    ("module", "extra", "package"),
    [("inspect_ai", "inspect", "inspect_ai"), ("lm_eval", "lm-eval", "lm_eval")],
)
def test_a_missing_package_names_its_extra(module, extra, package, monkeypatch):
    name = f"latentmas.evaluation.adapters.{module}"
    for part in (package, f"{package}.model", f"{package}.api", f"{package}.api.instance"):
        monkeypatch.setitem(sys.modules, part, None)
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'latentmas\[{extra}\]'"):
        importlib.import_module(name)


# ── the harnesses themselves ──────────────────────────────────────────────────────────────────


@pytest.fixture
def team(system: lm.System, tmp_path: Path) -> str:
    return str(system.save_pretrained(tmp_path / "team"))


@pytest.mark.filterwarnings("ignore")  # its own, from its libraries
@needs_inspect
def test_a_task_of_inspect(system, team, tmp_path):
    from inspect_ai import Task, eval
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import GenerateConfig
    from inspect_ai.scorer import match

    import latentmas.evaluation.adapters.inspect_ai  # noqa: F401 - else found by entry point

    gold = [alone(system, f"{n}?", DRAWN, Seeds(0).next(f"{n}?")) for n in range(6)]
    samples = [
        Sample(input=f"{n}?", target=gold[n] if n % 2 else gold[n] + " never") for n in range(6)
    ]
    task = Task(dataset=MemoryDataset(samples), scorer=match(location="exact"))
    [log] = eval(
        task,
        model=f"latentmas/{team}",
        model_args={"dtype": "float64"},
        log_dir=str(tmp_path / "logs"),
        display="none",
        max_tokens=6,
        temperature=1.5,
    )
    assert log.status == "success", log.error
    assert [sample.output.completion for sample in log.samples] == gold
    assert log.results.scores[0].metrics["accuracy"].value == 0.5
    usage = next(iter(log.stats.model_usage.values()))
    seeds = tuple(Seeds(0).next(f"{n}?") for n in range(6))
    runs = system.run([f"{n}?" for n in range(6)], options=DRAWN, seed=seeds).accounting
    assert usage.output_tokens == sum(record.new_tokens for record in runs)
    assert usage.input_tokens == sum(record.prompt_tokens for record in runs)
    with pytest.raises(Exception, match="logprobs"):
        _ask_inspect(team, GenerateConfig(logprobs=True))


def _ask_inspect(team: str, config: Any) -> str:
    from inspect_ai.model import get_model

    async def ask() -> str:
        async with get_model(f"latentmas/{team}", dtype="float64") as model:
            return (await model.generate("1?", config=config)).completion

    return asyncio.run(ask())


@pytest.mark.filterwarnings("ignore")  # its own, from its libraries
@needs_inspect
def test_settings_of_inspect_reach_the_run(system, team):
    from inspect_ai.model import GenerateConfig

    import latentmas.evaluation.adapters.inspect_ai  # noqa: F401

    text = _ask_inspect(team, GenerateConfig(max_tokens=6, temperature=1.5, seed=5))
    assert text == alone(system, "1?", DRAWN, 5)


@needs_lm_eval
def test_a_task_of_lm_eval(system, team, tmp_path):
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    import latentmas.evaluation.adapters.lm_eval  # noqa: F401 - registers the model

    gold = [alone(system, f"{n}?", DRAWN, Seeds(0).next(f"{n}?")) for n in range(6)]
    rows = [{"q": f"{n}?", "a": gold[n] if n % 2 else "never"} for n in range(6)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.yaml").write_text(
        "task: own\ndataset_path: json\noutput_type: generate_until\ntest_split: test\n"
        f"dataset_kwargs:\n  data_files:\n    test: {tmp_path}/rows.jsonl\n"
        'doc_to_text: "{{q}}"\ndoc_to_target: "{{a}}"\ntarget_delimiter: ""\n'
        "generation_kwargs:\n  until: []\n  max_gen_toks: 6\n  do_sample: true\n"
        "  temperature: 1.5\n"
        "metric_list:\n  - metric: exact_match\n    aggregation: mean\n    higher_is_better: true\n"
    )
    found = simple_evaluate(
        model="latentmas",
        model_args={"team": team, "dtype": "float64"},
        tasks=["own"],
        task_manager=TaskManager(include_path=str(tmp_path)),
        batch_size=4,
        bootstrap_iters=0,
    )
    assert found["results"]["own"]["exact_match,none"] == 0.5


@needs_lm_eval
def test_lm_eval_asks_for_no_likelihoods(team):
    from latentmas.evaluation.adapters.lm_eval import TeamLM

    model = TeamLM(team)
    with pytest.raises(NotImplementedError, match="generate_until"):
        model.loglikelihood([])
    with pytest.raises(NotImplementedError, match="chat template"):
        model.apply_chat_template([])
