"""Decoding as users expect it: filters, seeds, several answers, stop strings, streams, retries."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

import latentmas as lm
from latentmas.generation.penalty import WrittenTokens
from latentmas.generation.sampling import Sampling, pick
from latentmas.runtime import Retry
from tests.scripted import says, scripted
from tests.served import write_slowly
from tests.teams import QUESTIONS, sequential, tiny

DRAWN = {"do_sample": True, "temperature": 3.0}


@pytest.fixture(scope="module")
def team() -> lm.System:
    return sequential().compile().load()


@pytest.fixture(scope="module")
def solo() -> lm.System:
    graph = lm.Graph("one", inputs=["question"], rounds=1, latent_steps=2)
    graph.add_agent("solver", tiny("llama", 16), prompt="{{ question }}")
    return graph.output("solver").compile().load()


# --- filters ------------------------------------------------------------------------------------


@given(
    scores=st.lists(st.integers(-40, 40), min_size=5, max_size=12, unique=True),
    temperature=st.sampled_from([0.5, 1.0, 2.0]),
    top_k=st.none() | st.integers(1, 12),
    top_p=st.sampled_from([0.3, 0.72, 0.95, 1.0]),
    min_p=st.none() | st.sampled_from([0.05, 0.31]),
    penalty=st.sampled_from([1.0, 1.3]),
    written=st.lists(st.integers(0, 4), max_size=3),
    u=st.floats(0, 0.999),
)
def test_filters_are_those_of_transformers(
    scores: list[int],
    temperature: float,
    top_k: int | None,
    top_p: float,
    min_p: float | None,
    penalty: float,
    written: list[int],
    u: float,
) -> None:
    logits = torch.tensor([scores]) / 10
    warpers: list[Any] = [RepetitionPenaltyLogitsProcessor(penalty)] if written else []
    warpers += [TemperatureLogitsWarper(temperature)]
    warpers += [] if top_k is None else [TopKLogitsWarper(top_k)]
    warpers += [TopPLogitsWarper(top_p)]
    warpers += [] if min_p is None else [MinPLogitsWarper(min_p)]
    ids = torch.tensor([written], dtype=torch.long)
    theirs = LogitsProcessorList(warpers)(ids, logits.clone())[0].softmax(-1)
    sampling = Sampling(
        do_sample=True,
        temperature=temperature,
        top_k=top_k,
        top_p=top_p,
        min_p=min_p,
        repetition_penalty=penalty,
    )
    seen = WrittenTokens()
    seen.add_rows(1)
    seen.write([(0, written)])
    seen.penalise(logits, [penalty] * len(logits))
    token = int(pick(logits, sampling, torch.tensor([u])))
    order = theirs.sort(descending=True, stable=True).indices.tolist()
    before = float(theirs[order[: order.index(token)]].sum())
    assert theirs[token] > 0
    assert before - 1e-5 <= u <= before + float(theirs[token]) + 1e-5


def test_the_penalty_counts_when_nothing_is_drawn(solo: lm.System) -> None:
    plain = solo.run(["aaaa"], max_new_tokens=30).token_ids[0]
    varied = solo.run(["aaaa"], max_new_tokens=30, repetition_penalty=50.0).token_ids[0]
    assert len(set(varied)) > len(set(plain))


# --- seeds and several answers ------------------------------------------------------------------


def test_a_seed_for_each_sample_makes_it_draw_the_same_anywhere(team: lm.System) -> None:
    seeds = {question: i + 5 for i, question in enumerate(QUESTIONS)}
    alone = {
        q: team.run([q], **DRAWN, seed=[s], max_new_tokens=6).texts[0] for q, s in seeds.items()
    }
    order = [QUESTIONS[2], QUESTIONS[0], QUESTIONS[1]]
    together = team.run(order, **DRAWN, seed=[seeds[q] for q in order], max_new_tokens=6)
    assert together.texts == [alone[q] for q in order]
    with pytest.raises(lm.LatentMASError, match="2 seeds for 3 samples"):
        team.run(QUESTIONS, **DRAWN, seed=[1, 2])


def test_several_answers_come_from_one_latent_phase(team: lm.System) -> None:
    one = team.run(QUESTIONS, **DRAWN, seed=3, max_new_tokens=6)
    many = team.run(QUESTIONS, **DRAWN, seed=3, max_new_tokens=6, num_return_sequences=4)
    assert [len(own) for own in many.sequences] == [4, 4, 4]
    assert [own[0] for own in many.sequences] == many.texts == one.texts
    assert len({tuple(ids) for own in many.sequence_ids for ids in own}) > 8
    latent = [(r.round, r.agent, r.latent_steps) for r in many.accounting if r.op == "rollout"]
    assert latent == [
        (r.round, r.agent, r.latent_steps) for r in one.accounting if r.op == "rollout"
    ]
    batches = team.run(
        QUESTIONS, **DRAWN, seed=3, max_new_tokens=6, num_return_sequences=4, batch_size=2
    )
    assert batches.sequence_ids == many.sequence_ids
    plain = team.run(
        QUESTIONS, **DRAWN, seed=3, max_new_tokens=6, num_return_sequences=4, executor="reference"
    )
    assert plain.sequence_ids == many.sequence_ids
    with pytest.raises(lm.LatentMASError, match="do_sample=True"):
        team.run(QUESTIONS, num_return_sequences=2)
    with pytest.raises(lm.LatentMASError, match="at least 1"):
        team.run(QUESTIONS, num_return_sequences=0)


# --- stop strings and streams -------------------------------------------------------------------

STORIES = {
    "one": says("first\nsecond\nthird"),
    "two": says("a much longer first line\nsecond"),
    "three": says("no end"),
    "four": says("é中 — ünïcode ✓ \U0001f600 all of it"),
}


def test_stop_strings_end_each_row_by_itself(solo: lm.System) -> None:
    with scripted(STORIES) as executor:
        result = solo.run(list(STORIES), executor=executor, stop=["\n", "ünï"])
        assert result.texts == ["first", "a much longer first line", "no end", "é中 — "]
        single = solo.run(["two"], executor=executor, stop="longer")
    assert single.texts == ["a much "]
    assert single.accounting[0].new_tokens == len("a much longer")


@pytest.mark.parametrize("stop", [(), ("\n",), ("second", "✓ \U0001f600")])
def test_a_stream_is_the_text_in_whole_characters(solo: lm.System, stop: tuple[str, ...]) -> None:
    pieces: dict[int, list[str]] = {i: [] for i in range(len(STORIES))}
    with scripted(STORIES) as executor:
        result = solo.run(
            list(STORIES),
            executor=executor,
            stop=stop,
            on_text=lambda sample, text: pieces[sample].append(text),
        )
        assert ["".join(own) for own in pieces.values()] == result.texts
        assert all("\ufffd" not in piece for own in pieces.values() for piece in own)
        assert len(pieces[1]) > 5
        streamed = list(solo.stream("four", executor=executor, stop=stop))
        assert "".join(streamed) == result.texts[3]


def test_a_random_model_streams_its_text(team: lm.System) -> None:
    """Bytes at random: unfinished characters come at the end."""
    pieces: list[str] = []
    options = DRAWN | {"max_new_tokens": 40}
    result = team.run(QUESTIONS[:1], **options, on_text=lambda _, text: pieces.append(text))
    assert "".join(pieces) == result.text


def test_closing_a_stream_ends_the_run(solo: lm.System, monkeypatch: pytest.MonkeyPatch) -> None:
    write_slowly(monkeypatch)
    before = set(threading.enumerate())
    with scripted({"long": says("word " * 200)}) as executor:
        stream = solo.stream("long", executor=executor, max_new_tokens=900)
        assert next(stream)
        (writer,) = set(threading.enumerate()) - before
        stream.close()
    assert not writer.is_alive()


def test_an_error_reaches_the_reader_of_a_stream(solo: lm.System) -> None:
    with pytest.raises(lm.DataError):
        list(solo.stream({"query": "x"}))


# --- retries ------------------------------------------------------------------------------------

LED_ON = {
    "done": says("It is \\boxed{4}."),
    "lost": lambda text: (
        text[: text.rindex("{") + 1] + "7}" if "boxed{" in text else "I do not know."
    ),
    "wordy": lambda text: text[: text.rindex("{") + 1] + "9}" if "boxed{" in text else "word " * 50,
}


def test_a_retry_leads_on_from_what_the_row_has_seen(solo: lm.System) -> None:
    with scripted(LED_ON) as executor:
        result = solo.run(list(LED_ON), executor=executor, max_new_tokens=30, retry="math")
        again = [
            solo.run([q], executor=executor, max_new_tokens=30, retry="math").texts[0]
            for q in LED_ON
        ]
    assert result.texts == [
        "It is \\boxed{4}.",
        "I do not know.\nFinal answer: \\boxed{7}",
        ("word " * 50)[:30] + "\nFinal answer: \\boxed{9}",
    ]
    assert result.texts == again
    assert result.retried == [1, 2]


def test_a_retry_of_ones_own_and_its_budget(solo: lm.System) -> None:
    retry = Retry(lambda text: text.endswith("!"), "\nLouder: ", 3)
    with scripted({"quiet": lambda text: text + "abcdefgh"}) as executor:
        result = solo.run(["quiet"], executor=executor, max_new_tokens=4, retry=retry)
    assert result.text[4:-3] == "\nLouder: "
    assert len(result.text) == 4 + len("\nLouder: ") + 3
    with pytest.raises(lm.UnknownNameError, match="unknown retry 'maths'; did you mean 'math'"):
        solo.run(["x"], retry="maths")


def test_a_retry_goes_on_after_a_stop_string(solo: lm.System) -> None:
    """What the cue says itself ends nothing, and the stream is the text."""
    pieces: list[str] = []
    with scripted(LED_ON) as executor:
        result = solo.run(
            ["lost", "done"],
            executor=executor,
            stop=["know", "\n", "."],
            retry="math",
            on_text=lambda sample, text: pieces.append(text) if not sample else None,
        )
    assert result.texts == ["I do not know\nFinal answer: \\boxed{7}", "It is \\boxed{4}"]
    assert "".join(pieces) == result.texts[0]


# --- rows end on their own ------------------------------------------------------------------------


@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=5), max_new_tokens=st.integers(1, 14)
)
def test_rows_end_alone(solo: lm.System, lengths: list[int], max_new_tokens: int) -> None:
    scripts = {f"[{i}]": says("abcdefghijkl"[:n]) for i, n in enumerate(lengths)}
    with scripted(scripts) as executor:
        result = solo.run(list(scripts), executor=executor, max_new_tokens=max_new_tokens)
    assert result.texts == ["abcdefghijkl"[: min(n, max_new_tokens)] for n in lengths]


def test_thinking_is_an_option_of_the_agent() -> None:
    template = (
        "{% for m in messages %}{{ m['content'] }}{% endfor %}"
        "{% if enable_thinking %}<think>{% else %}<think></think>{% endif %}"
    )
    lengths = {}
    for thinking in (True, False):
        graph = lm.Graph("one", inputs=["question"], rounds=1, latent_steps=2)
        graph.add_agent("solver", tiny("llama", 16), prompt="{{ question }}", thinking=thinking)
        system = graph.output("solver").compile().load()
        system.backbone_of("solver").tokenizer.chat_template = template
        lengths[thinking] = system.run(["x"], max_new_tokens=1).accounting[0].prompt_tokens
    assert lengths == {True: len("x<think>"), False: len("x<think></think>")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_p": 1.5}, "min_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"stop": [""]}, "leave the empty string out"),
    ],
)
def test_bad_options_are_named(solo: lm.System, options: dict[str, Any], message: str) -> None:
    with pytest.raises(lm.LatentMASError, match=message):
        solo.run(["x"], **options)
