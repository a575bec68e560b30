"""The engine: requests that join and leave a running batch get what they would get alone."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
import torch

import latentmas as lm
from latentmas.errors import DataError, ExecutionError, LatentMASError
from latentmas.runtime import OpenBatch, Token
from latentmas.serve import Engine, RequestError, ServeSettings
from latentmas.serve.tickets import Begun, Inbox, Text
from latentmas.testing import TINY_FAMILIES
from tests.served import DRAWN, alone, asked, engine, pair, soon, texts, write_slowly
from tests.teams import load64


@pytest.fixture(scope="module")
def system() -> lm.System:
    return load64(pair())


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer of thousands of tokens is in progress until it is cancelled."""
    write_slowly(monkeypatch)


# --- the open batch ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("family", "executor"), [*((name, "cached") for name in TINY_FAMILIES), ("qwen3", "static")]
)
def test_samples_that_join_one_another_equal_themselves_alone(family: str, executor: str) -> None:
    window = {"sliding_window": 16} if family in ("mistral", "gemma3_text") else {}
    system = load64(pair(family, **window))
    batch, found = OpenBatch(system, executor=executor), dict[str, str]()
    joins = {0: "a question of some length " * 2, 3: "b", 9: "a third", 14: "and c", 21: "the last"}
    options = lm.RunOptions(**DRAWN, max_new_tokens=11)
    with batch.active():
        for step in range(60):
            if (question := joins.get(step)) is not None:
                own = options.replace(seed=(step,), temperature=1.0 + step / 30)
                batch.join([{"question": question}], own, lambda event: None)
            batch.advance()
            for group, place, end in batch.finished():
                found[group.walk.samples[place]["question"]] = end.end.texts[0]
    for step, question in joins.items():
        own = options.replace(seed=(step,), temperature=1.0 + step / 30)
        assert found[question] == system.run([question], options=own).text


def test_columns_of_rows_that_have_left_are_forgotten(system: lm.System) -> None:
    """Without it, a batch that is never empty would take more and more memory."""
    batch, columns = OpenBatch(system, executor="cached"), list[int]()
    options = lm.RunOptions(do_sample=True, max_new_tokens=12)
    with batch.active():
        for step in range(200):
            if step % 6 == 0:
                own = options.replace(seed=(step,))
                batch.join([{"question": "x" * (step % 5)}], own, lambda event: None)
            batch.advance()
            batch.finished()
            pool = batch._pool
            if pool is not None and pool._feed is not None:
                columns.append(pool._feed.mask_BL.shape[1])
                assert pool._feed._state.length == columns[-1]
    assert len(columns) > 150  # it was hardly ever empty
    assert max(columns[100:]) <= max(columns[:60]) + 12


def test_a_sample_that_is_cancelled_frees_its_row(system: lm.System) -> None:
    batch, options = OpenBatch(system), lm.RunOptions(**DRAWN, max_new_tokens=40)
    seen = list[int]()

    def watch(event: Any) -> None:
        if isinstance(event, Token):
            seen.append(event.sample)

    with batch.active():
        questions = [{"question": "a"}, {"question": "b"}]
        group = batch.join(questions, options.replace(seed=(4, 5)), watch)
        batch.advance()
        assert batch.rows == 2
        group.cancel(0)
        assert batch.rows == 1
        ends = list[Any]()
        while batch.joined:
            batch.advance()
            ends += batch.finished()
    assert seen.count(0) == 1
    assert [place for _, place, _ in ends] == [1]
    assert ends[0][2].end.texts[0] == system.run(["b"], options=options, seed=(5,)).text


def test_what_was_asked_for_is_recorded(system: lm.System) -> None:
    batch = OpenBatch(system)
    options = lm.RunOptions(record=("messages", "states"), max_new_tokens=3, seed=(0, 0))
    with batch.active():
        batch.join([{"question": "a"}, {"question": "b"}], options, lambda event: None)
        ends = list[Any]()
        while batch.joined:
            batch.advance()
            ends += batch.finished()
    run = system.run(["b"], record=("messages", "states"))
    last = next(end for _, place, end in ends if place == 1)
    for name, values in (("messages", last.messages), ("states", last.states)):
        wanted = getattr(run, name)
        assert wanted.keys() == values.keys()
        for key, value in values.items():
            torch.testing.assert_close(value, wanted[key][0])


# --- the engine -------------------------------------------------------------------------------


def test_many_at_once_equal_each_alone(system: lm.System) -> None:
    questions = [
        asked(f"question {i}", seed=i, do_sample=True, temperature=1 + i % 3 / 5, top_p=0.95)
        for i in range(10)
    ]
    questions += [asked("greedy", max_new_tokens=5), asked("hm", rounds=1, latent_steps=4)]
    questions += [asked("several", seed=3, num_return_sequences=3, stop=("e", "\n"), **DRAWN)]

    async def ask() -> list[list[str]]:
        inboxes = []
        for question in questions:
            inboxes.append(made.submit([question]))
            await asyncio.sleep(0.004)
        return [(await texts(inbox))[0] for inbox in inboxes]

    with engine(system, max_rows=6) as made:
        answers = asyncio.run(ask())
    assert answers == [alone(system, question) for question in questions]


def test_requests_join_while_others_are_written(system: lm.System, endless: None) -> None:
    async def ask() -> None:
        long = made.submit([asked("a", max_new_tokens=4000, seed=9, **DRAWN)], streams=True)
        await anext(e async for e in long.events() if isinstance(e[1], Text))
        await texts(made.submit([asked("b", max_new_tokens=2, **DRAWN)]))
        assert not long.results  # the short one has overtaken it
        long.cancel()
        await soon(lambda: not made._active)

    with engine(system) as made:
        asyncio.run(ask())


def test_streams_give_the_same_text(system: lm.System) -> None:
    question = asked("streamed", seed=5, num_return_sequences=2, stop=("zz",), **DRAWN)

    async def ask() -> tuple[list[str], list[Any]]:
        inbox, pieces, events = made.submit([question], streams=True), ["", ""], []
        async for _, event in inbox.events():
            events.append(event)
            if isinstance(event, Text):
                pieces[event.sequence] += event.text
        return pieces, events

    with engine(system) as made:
        pieces, events = asyncio.run(ask())
    assert pieces == alone(system, question)
    assert isinstance(events[0], Begun)
    assert sum(isinstance(event, Text) for event in events) > 2


def test_what_cannot_run_is_refused_and_the_others_run(system: lm.System) -> None:
    async def ask() -> None:
        good, bad = asked("fine"), asked("x" * 5000)
        inboxes = [made.submit([one]) for one in (good, bad, asked("y", rounds=101), good)]
        for inbox, cause in ((inboxes[1], "4096"), (inboxes[2], "LM113")):
            with pytest.raises(RequestError, match=cause) as caught:
                await inbox.finished()
            assert caught.value.status == 400
        assert await texts(inboxes[0]) == await texts(inboxes[3]) == [alone(system, good)]

    with engine(system) as made:
        asyncio.run(ask())


class FailsOn:
    """Makes steps fail that hold a row with a certain question, in the place that is named."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, where: str, word: str) -> None:
        self.failures, original = 0, getattr(OpenBatch, where)

        def failing(batch: OpenBatch, *arguments: Any) -> Any:
            walks = [group.walk.samples for group in batch.joined]
            inside = [s["question"] for samples in [*walks, *arguments[:1]] for s in samples]
            if word in inside and (where == "join" or batch.rows):
                self.failures += 1
                if where == "advance":
                    batch.close()
                raise ExecutionError("out of memory", step=0, agent="reader", round=1)
            return original(batch, *arguments)

        monkeypatch.setattr(OpenBatch, where, failing)


@pytest.mark.parametrize("where", ["join", "advance"])
def test_a_failure_costs_only_its_own_request(
    system: lm.System, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """The others run again, and what they had already said is not said twice."""
    fails = FailsOn(monkeypatch, where, "bad")
    questions = [asked(word, seed=i, **DRAWN) for i, word in enumerate(("a", "b", "bad", "c"))]

    async def said(inbox: Inbox) -> str:
        pieces = [e.text async for _, e in inbox.events() if isinstance(e, Text)]
        return "".join(pieces)

    async def ask() -> list[Any]:
        inboxes = [made.submit([question], streams=True) for question in questions]
        return await asyncio.gather(*map(said, inboxes), return_exceptions=True)

    with engine(system) as made:
        answers = asyncio.run(ask())
    assert fails.failures == 2  # once among others, once alone
    error = answers.pop(2)
    assert isinstance(error, RequestError) and error.status == 500 and "out of memory" in str(error)
    del questions[2]
    assert answers == [alone(system, question)[0] for question in questions]


def test_an_exclusive_call_has_the_team_to_itself(system: lm.System) -> None:
    order = list[str]()

    def call(team: lm.System) -> tuple[str, str]:
        assert team is system
        order.append(f"call, {made._batch.rows} rows")
        return team.run(["x"]).text, threading.current_thread().name

    async def ask(question: str) -> None:
        await texts(made.submit([asked(question, max_new_tokens=9, **DRAWN)]))
        order.append(question)

    async def all_of_them() -> tuple[str, str]:
        first = asyncio.ensure_future(ask("first"))
        await asyncio.sleep(0)
        call_ = asyncio.ensure_future(made.exclusive(call))
        await asyncio.sleep(0)
        await asyncio.gather(first, ask("last"))
        return await call_

    with engine(system) as made:
        text, thread = asyncio.run(all_of_them())
        assert text == system.run(["x"]).text
        assert thread == "engine"
        assert order == ["first", "call, 0 rows", "last"] or order == [
            "call, 0 rows", "first", "last"
        ]  # fmt: skip
        with pytest.raises(ZeroDivisionError):
            asyncio.run(made.exclusive(lambda team: 1 // 0))


def test_the_queue_is_limited(system: lm.System, endless: None) -> None:
    async def ask() -> None:
        running = made.submit([asked("a", max_new_tokens=4000, **DRAWN)])
        await soon(lambda: made._active)
        waiting = made.submit([asked("b"), asked("c")])
        with pytest.raises(RequestError, match="2 prompts wait") as caught:
            made.submit([asked("d")])
        assert caught.value.status == 429
        waiting.cancel()
        await soon(lambda: not made._waiting)
        running.cancel()
        await soon(lambda: not made._active)

    with engine(system, max_rows=1, max_waiting=2) as made:
        asyncio.run(ask())


def test_the_time_of_a_request_is_limited(system: lm.System, endless: None) -> None:
    async def ask() -> None:
        running = made.submit([asked("a", max_new_tokens=4000, **DRAWN)])
        with pytest.raises(RequestError, match="within 1 seconds") as caught:
            await running.finished()
        assert caught.value.status == 504
        assert not made._active

    with engine(system, request_seconds=1) as made:
        asyncio.run(ask())


def test_draining_finishes_what_was_accepted(system: lm.System) -> None:
    questions = [asked(f"q{i}", seed=i, **DRAWN) for i in range(9)]

    async def ask() -> list[list[list[str]]]:
        inboxes = [made.submit([question]) for question in questions]
        call = asyncio.ensure_future(made.exclusive(lambda team: "ran"))
        await asyncio.sleep(0)
        made.drain()
        with pytest.raises(RequestError, match="shutting down") as caught:
            made.submit([asked("late")])
        assert caught.value.status == 503
        with pytest.raises(RequestError, match="shutting down"):
            await made.exclusive(lambda team: None)
        await made.drained()
        assert await call == "ran"
        return [await texts(inbox) for inbox in inboxes]

    with engine(system, max_rows=2) as made:
        assert asyncio.run(ask()) == [[alone(system, question)] for question in questions]


def test_settings_are_checked(system: lm.System) -> None:
    for wrong in ({"max_rows": 0}, {"request_seconds": 0}, {"conversation": "x"}, {"api_keys": ""}):
        with pytest.raises(LatentMASError, match=next(iter(wrong))):
            ServeSettings(**wrong)
    with pytest.raises(LatentMASError, match="executor"):
        Engine(system, ServeSettings(executor="fast"))
    with pytest.raises(TypeError, match="Engine"):
        Engine("team")  # type: ignore[arg-type]
    assert issubclass(DataError, LatentMASError)
