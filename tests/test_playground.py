"""The playground's routes: the page, runs as events, changes of messages, refusals, stopping."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from fastapi.testclient import TestClient
from torch import Tensor

import latentmas as lm
from latentmas.runtime import System
from latentmas.serve.playground.asking import Ask
from latentmas.serve.playground.changes import changed
from latentmas.serve.playground.running import Run
from tests.playground import Engine, lively, make_app, served
from tests.served import write_slowly
from tests.teams import of_template, sequential

QUESTION = {"question": "What is 3 + 4?"}
PLAN = "critic->solver.plan"
ZERO = {"edge": PLAN, "how": "zero"}


@pytest.fixture(scope="module")
def system() -> System:
    return lively()


@pytest.fixture(scope="module")
def client(system: System) -> Iterator[TestClient]:
    with TestClient(make_app(system)) as client:
        yield client


def events(client: TestClient, request: Any, **headers: str) -> list[dict[str, Any]]:
    reply = client.post("/playground/ask", json=request, headers=headers)
    assert reply.status_code == 200, reply.text
    assert reply.headers["content-type"].startswith("text/event-stream")
    blocks = reply.text.split("\n\n")
    return [json.loads(block.removeprefix("data: ")) for block in blocks if block[:5] == "data:"]


def answer(client: TestClient, **request: Any) -> dict[str, Any]:
    last = events(client, {"inputs": QUESTION, **request})[-1]
    assert last["type"] == "end", last
    return last


def tokens(readings: Any) -> list[list[list[str]]]:
    """Without probabilities and cosines."""
    return [[[token for token, _ in near] for near in steps] for steps in readings]


# ── the page ──────────────────────────────────────────────────────────────────────────────────


class Page(HTMLParser):
    """Tags with their attributes, and what labels are for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def attributes(self, *tags: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag in tags]


def test_the_page_loads_nothing_and_runs_only_its_own_script(client: TestClient):
    reply = client.get("/")
    policy = reply.headers["content-security-policy"]
    nonces = re.findall(r"'nonce-([\w-]{20,})'", policy)
    assert len(set(nonces)) == 1 and "unsafe" not in policy
    assert policy.startswith("default-src 'none'; ")
    page = Page(reply.text)
    assert {a["nonce"] for a in page.attributes("style")} == {nonces[0]}
    code = [a for a in page.attributes("script") if a.get("type") != "application/json"]
    assert [a["nonce"] for a in code] == [nonces[0]]
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") or name == "style" for name in attributes), tag
        assert attributes.get("href", "#")[0] == "#" or attributes["href"] == "data:,"
        assert "src" not in attributes
    assert client.get("/").headers["content-security-policy"] != policy  # a nonce is used once


def test_every_field_of_the_page_has_a_label(client: TestClient):
    page = Page(client.get("/").text)
    labels = {attributes.get("for") for attributes in page.attributes("label")}
    wrapped = {"twin"}  # its label is around it
    fields = {a["id"] for a in page.attributes("input", "select", "textarea")}
    assert len(fields) >= 10
    assert fields <= labels | wrapped


def test_names_from_a_graph_are_text():
    graph = sequential(rounds=1)
    hostile = "</script><script>alert(1)</script>"
    system = lm.Graph.from_spec(graph.spec().replace(name=hostile)).compile().load()
    with TestClient(make_app(system)) as client:
        text = client.get("/").text
    assert "alert(1)" in text
    assert "<script>alert" not in text


# ── runs ──────────────────────────────────────────────────────────────────────────────────────


def test_a_run_is_told_step_by_step_and_equals_system_run(client: TestClient, system: System):
    told = events(client, {"inputs": QUESTION})
    expected = system.run([QUESTION], record="report")
    kinds = [message["type"] for message in told]
    assert kinds[:2] == ["wait", "begin"] and kinds[-1] == "end"
    steps = told[1]["steps"]
    assert [(s["op"], s["agent"], s["round"]) for s in steps] == [
        (s.op, s.agent, s.round) for s in system.plan.steps
    ]
    assert {"agent planner", f"edge {PLAN}"} <= {part for s in steps for part in s["parts"]}
    seen = [(m["index"], m["state"]) for m in told if m["type"] == "step"]
    assert seen == [(i, state) for i in range(len(steps)) for state in ("begin", "end")]
    last = told[-1]
    assert "".join(m["text"] for m in told if m["type"] == "text") == last["text"]
    assert last["text"] == expected.text
    assert last["finish"] == expected.finish_reasons[0][0]
    assert last["costs"]["latent_steps"] == sum(r.latent_steps for r in expected.accounting)
    assert last["costs"]["new_tokens"] == len(expected.token_ids[0])
    assert last["seconds"] > 0
    record = expected.record
    assert record is not None
    near = [reading["nearest"] for reading in last["latents"]]
    assert tokens(near) == tokens([reading.nearest[0] for reading in record.readings])
    assert [r["label"] for r in last["latents"]][:2] == ["planner", "planner → critic (plan)"]


def test_sizes_are_those_of_the_request(client: TestClient, system: System):
    sizes = {"rounds": 3, "latent_steps": 2, "max_new_tokens": 2}
    expected = system.run([QUESTION], **sizes)
    last = answer(client, **sizes)
    assert last["text"] == expected.text
    assert last["costs"]["latent_steps"] == 2 * 8  # all turns but the one that writes
    assert last["costs"]["new_tokens"] == 2


def test_the_twin_answers_beside_the_team(client: TestClient, system: System):
    expected = system.text_twin().run([QUESTION], max_new_tokens=4)
    last = answer(client, twin=True, max_new_tokens=4)
    assert last["text"] == expected.text
    assert [said["text"] for said in last["texts"]] == [
        texts[0] for texts in expected.text_messages.values()
    ]
    assert last["latents"] == []


def test_mixture_teams_run_as_well():
    system = of_template("mixture", "llama").compile().load()
    with TestClient(make_app(system)) as client:
        assert answer(client)["text"] == system.run([QUESTION]).text


# ── changes ───────────────────────────────────────────────────────────────────────────────────


def arrived(system: System, edge: str, *changes: dict[str, Any], **more: Any) -> dict[str, Any]:
    """What arrives on an edge, with changes."""
    ask = Ask.model_validate({"inputs": QUESTION, "changes": list(changes), **more})
    with changed(system, ask, lambda: system.run([ask.other])), system.tap(edge) as tap:
        system.run([QUESTION])
    assert not [tap for tap in system.taps.open if not tap.removed]
    return tap.messages | tap.texts


def test_what_arrives_is_changed_in_the_round_that_was_named(system: System):
    plain = arrived(system, PLAN)
    first, second = plain
    zero = arrived(system, PLAN, {**ZERO, "round": 2})
    assert torch.equal(zero[first], plain[first])
    assert not zero[second].any()
    every = arrived(system, PLAN, ZERO)
    assert not every[first].any() and not every[second].any()


def test_a_shuffled_message_has_the_same_rows_in_other_places(system: System):
    name = next(iter(plain := arrived(system, PLAN)))
    shuffled = arrived(system, PLAN, {"edge": PLAN, "how": "shuffle"})[name][0]
    rows = plain[name][0]
    places = [next(i for i, row in enumerate(rows) if torch.equal(row, new)) for new in shuffled]
    assert sorted(places) == list(range(len(rows)))
    assert all(place != i for i, place in enumerate(places))


def test_words_arrive_as_the_receivers_embeddings(system: System):
    change = {"edge": PLAN, "how": "words", "words": "add <|im_end|>"}
    message = next(iter(arrived(system, PLAN, change).values()))
    solver = system.backbone_of("solver")
    ids = [int((solver.embed(torch.arange(len(solver.tokenizer))) - row).norm(dim=-1).argmin())
           for row in message[0]]  # fmt: skip
    assert solver.tokenizer.decode(ids) == "add <|im_end|>"
    assert solver.tokenizer.eos_token_id not in ids  # a visitor's words end no turn


def test_messages_of_another_question_arrive(system: System):
    other = {"question": "a quite different question"}
    with system.tap(PLAN) as tap:
        system.run([other])
    found = arrived(system, PLAN, {"edge": PLAN, "how": "question"}, other=other)
    assert found.keys() == tap.messages.keys()
    first = next(iter(found))
    torch.testing.assert_close(found[first], tap.messages[first])


@pytest.mark.parametrize("how", ["zero", "shuffle", "words", "question"])
def test_a_changed_run_equals_one_with_the_same_edit(client: TestClient, system: System, how: str):
    other = {"question": "a quite different question"}
    change = {"edge": PLAN, "how": how, "words": "seven" if how == "words" else ""}
    messages = arrived(system, PLAN, change, other=other)

    def edit(name: str, message_BKD: Tensor) -> Tensor:
        return messages.get(name, message_BKD)

    last = answer(client, changes=[change], other=other)
    expected = system.run([QUESTION], edit_message=edit, record="report")
    assert last["text"] == expected.text != system.run([QUESTION]).text
    assert expected.record is not None
    near = [r["nearest"] for r in last["latents"]]
    readings = [r.nearest[0] for r in expected.record.readings]
    assert tokens(near) == tokens(readings)
    assert system.taps.open == []


def test_texts_are_changed_too(client: TestClient, system: System):
    twin = system.text_twin()
    silent = arrived(twin, PLAN, ZERO)
    assert set(map(tuple, silent.values())) == {("",)}
    words = arrived(twin, PLAN, {"edge": PLAN, "how": "words", "words": "one two"})
    assert set(map(tuple, words.values())) == {("one two",)}
    shuffle = ({"edge": PLAN, "how": "words", "words": "one two"}, {"edge": PLAN, "how": "shuffle"})
    assert set(map(tuple, arrived(twin, PLAN, *shuffle).values())) == {("two one",)}
    assert answer(client, twin=True, changes=[ZERO])["type"] == "end"


def test_a_message_of_one_step_cannot_be_shuffled(client: TestClient, system: System):
    change = {"edge": PLAN, "how": "shuffle"}
    request = {"inputs": QUESTION, "latent_steps": 1, "changes": [change]}
    last = events(client, request)[-1]
    assert last["type"] == "error"
    assert "round1.critic->solver has one latent step, which cannot be shuffled" in last["message"]
    assert system.taps.open == []


# ── refusals ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({}, "inputs: field required"),
        ({"inputs": QUESTION, "roundz": 1}, "roundz: extra inputs are not permitted"),
        ({"inputs": {"question": 3}}, "inputs.question: input should be a valid string"),
        ({"inputs": QUESTION, "rounds": 0}, "rounds: input should be greater than or equal to 1"),
        ({"inputs": QUESTION, "rounds": 9}, "rounds is 9; this server allows at most 8"),
        ({"inputs": QUESTION, "latent_steps": 65}, "latent_steps is 65; this server allows"),
        ({"inputs": QUESTION, "max_new_tokens": 1025}, "this server allows at most 1024"),
        ({"inputs": QUESTION, "changes": [{"edge": "a", "how": "zero"}]}, "edge 'a' is unknown"),
        ({"inputs": QUESTION, "changes": [{**ZERO, "round": 3}]}, "round 3 is beyond the run's 2"),
        ({"inputs": QUESTION, "changes": [{"edge": PLAN, "how": "question"}]}, "other: give"),
    ],
)
def test_bad_requests_are_refused(client: TestClient, request_: Any, said: str):
    reply = client.post("/playground/ask", json=request_)
    assert reply.status_code == 400
    assert said in reply.json()["error"]["message"]


def test_a_request_that_is_not_json_is_refused(client: TestClient):
    reply = client.post("/playground/ask", content=b"question=3")
    assert reply.status_code == 400
    assert "the request: invalid JSON" in reply.json()["error"]["message"]


def test_pages_of_other_sites_cannot_ask(client: TestClient):
    body = {"inputs": QUESTION}
    reply = client.post("/playground/ask", json=body, headers={"Origin": "https://evil.example"})
    assert reply.status_code == 403
    assert events(client, body, Origin="http://testserver")[-1]["type"] == "end"


def test_long_requests_are_refused(client: TestClient):
    reply = client.post("/playground/ask", content=b" " * 4_000_001)
    assert reply.status_code == 413


def test_a_sample_that_cannot_run_is_an_error_event(client: TestClient):
    last = events(client, {"inputs": {"qestion": "?"}})[-1]
    assert last["type"] == "error"
    assert "lacks the field 'question'" in last["message"]


def test_what_the_server_does_wrong_is_not_shown_in_full(
    client: TestClient, system: System, monkeypatch: pytest.MonkeyPatch
):
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(System, "run", fail)
    last = events(client, {"inputs": QUESTION})[-1]
    assert last == {
        "type": "error",
        "message": "the server failed with RuntimeError; its log says more",
    }


def test_an_engine_that_refuses_says_why(system: System):
    app = make_app(system)
    with TestClient(app) as client:
        client.get("/")

        async def refuse(fn: Any) -> None:
            raise lm.LatentMASError("the server is shutting down")

        app.state.engine.exclusive = refuse
        last = events(client, {"inputs": QUESTION})[-1]
    assert last == {"type": "error", "message": "the server is shutting down"}


# ── stopping ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("when", ["step", "text"])
def test_a_run_stops_at_its_next_step_or_token(system: System, when: str):
    told: list[dict[str, Any]] = []

    def tell(message: dict[str, Any]) -> None:
        told.append(message)
        if message["type"] == when:
            run.stop()

    run = Run(Ask(inputs=QUESTION), lambda team: team.text_twin(), tell)
    assert run(system) == "stopped"
    assert [message["type"] for message in told].count(when) == 1
    assert told[-1] == {"type": "stopped"}
    assert system.run([QUESTION]).text  # the team is as it was


def test_a_run_that_nobody_waits_for_does_not_begin(system: System):
    told: list[dict[str, Any]] = []
    run = Run(Ask(inputs=QUESTION), lambda team: team, told.append)
    run.stop()
    assert run(system) == "stopped"
    assert told == [{"type": "stopped"}]


def test_leaving_the_page_stops_the_run(system: System, monkeypatch: pytest.MonkeyPatch):
    write_slowly(monkeypatch)
    app = make_app(system)
    engine: Engine = app.state.engine
    body = json.dumps({"inputs": QUESTION, "max_new_tokens": 1024})
    with served(app) as address:
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=600)
        connection.request("POST", "/playground/ask", body)
        reply = connection.getresponse()
        while b'"text"' not in reply.readline():
            pass
        reply.close()
        connection.close()
        assert engine.outcomes.get(timeout=600) is system.plan  # what the first request reads
        assert engine.outcomes.get(timeout=600) == "stopped"
