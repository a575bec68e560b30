"""The HTTP server: the fields, limits and errors of its endpoints."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx
import pytest
import torch

import latentmas as lm
from latentmas.serve import ServeSettings, create_app, open_socket
from tests.served import pair, served, until, write_slowly
from tests.teams import load64

SAY = [{"role": "user", "content": "hello"}]
CHAT = {"model": "pair", "messages": SAY}
HOT = {"temperature": 1.3, "seed": 3}


@pytest.fixture(scope="module")
def system() -> lm.System:
    return load64(pair())


@asynccontextmanager
async def client(system: lm.System, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(system, ServeSettings(**settings))
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as made:
            made.app = app
            yield made
    finally:
        await asyncio.to_thread(app.state.engine.close)


def post(system: lm.System, body: Any, path: str = "chat/completions", **how: Any) -> Any:
    """The response to one request."""

    async def ask() -> Any:
        async with client(system, **how.pop("settings", {})) as made:
            content = body if isinstance(body, bytes) else json.dumps(body).encode()
            headers = {"content-type": "application/json"} | how.pop("headers", {})
            return await made.post(f"/v1/{path}", content=content, headers=headers)

    return asyncio.run(ask())


def refused(
    response: Any, status: int, *, param: str | None = None, code: str | None = None
) -> str:
    """The message of an error in OpenAI's form."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["param"] == param
    assert code is None or error["code"] == code
    return error["message"]


# --- answers ----------------------------------------------------------------------------------


def test_a_chat_is_answered(system: lm.System) -> None:
    body = post(system, CHAT | HOT | {"n": 2, "max_tokens": 7, "stop": "e"}).json()
    run = system.run(
        ["hello"], do_sample=True, temperature=1.3, seed=(3,), num_return_sequences=2,
        max_new_tokens=7, stop="e",
    )  # fmt: skip
    assert body["object"] == "chat.completion" and body["model"] == "pair"
    assert [c["message"]["content"] for c in body["choices"]] == run.sequences[0]
    assert [c["index"] for c in body["choices"]] == [0, 1]
    assert [c["finish_reason"] for c in body["choices"]] == run.finish_reasons[0]
    usage, total = body["usage"], run.accounting
    assert usage["prompt_tokens"] == sum(r.prompt_tokens for r in total)
    assert usage["completion_tokens"] == sum(r.new_tokens for r in total)
    assert usage["latent_steps"] == sum(r.latent_steps for r in total) == 2
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert body["latentmas"] == {"seed": 3}


def test_without_a_temperature_the_most_likely_token_is_taken(system: lm.System) -> None:
    want = system.run(["hello"]).text
    for more in ({}, {"temperature": 0, "top_p": 0.5}, {"temperature": None, "stop": None}):
        body = post(system, CHAT | more).json()
        assert body["choices"][0]["message"]["content"] == want


def test_a_drawn_seed_is_told(system: lm.System) -> None:
    first, other = (post(system, CHAT | {"temperature": 1.3, "max_tokens": 30}) for _ in range(2))
    seed, text = first.json()["latentmas"]["seed"], first.json()["choices"][0]["message"]["content"]
    assert seed != other.json()["latentmas"]["seed"]
    again = post(system, CHAT | {"temperature": 1.3, "max_tokens": 30, "seed": seed}).json()
    assert again["choices"][0]["message"]["content"] == text


def test_a_list_of_prompts_is_completed(system: lm.System) -> None:
    ask = {"model": "pair", "prompt": ["a", "b"], "n": 2, "temperature": 1.3, "seed": 5}
    body = post(system, ask, "completions").json()
    run = [
        system.run([p], do_sample=True, temperature=1.3, seed=(5,), num_return_sequences=2)
        for p in "ab"
    ]
    assert body["object"] == "text_completion"
    assert [c["text"] for c in body["choices"]] == run[0].sequences[0] + run[1].sequences[0]
    assert [c["index"] for c in body["choices"]] == [0, 1, 2, 3]
    assert body["usage"]["latent_steps"] == 4


def chunks(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize("path", ["chat/completions", "completions"])
def test_a_stream_adds_up_to_the_whole(system: lm.System, path: str) -> None:
    ask = HOT | {"model": "pair", "n": 2, "max_tokens": 20}
    ask |= {"messages": SAY} if path.startswith("chat") else {"prompt": ["hello", "bye"]}
    whole = post(system, ask, path).json()
    more = {"stream": True, "stream_options": {"include_usage": True}}
    response = post(system, ask | more, path)
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    parts, texts, reasons = chunks(response.text), dict[int, str](), dict[int, str]()
    for part in parts[:-1]:
        (choice,) = part["choices"]
        text = choice["delta"].get("content", "") if "delta" in choice else choice["text"]
        texts[choice["index"]] = texts.get(choice["index"], "") + text
        if choice["finish_reason"] is not None:
            reasons[choice["index"]] = choice["finish_reason"]
    for choice in whole["choices"]:
        text = choice["message"]["content"] if "message" in choice else choice["text"]
        assert texts[choice["index"]] == text
        assert reasons[choice["index"]] == choice["finish_reason"]
    assert parts[-1]["choices"] == []
    assert parts[-1]["usage"] == whole["usage"]
    assert len({part["id"] for part in parts}) == 1


def test_options_of_a_team_and_records(system: lm.System) -> None:
    more = {"latent_steps": 4, "record": ["messages", "states"], "max_completion_tokens": 2}
    body = post(system, CHAT | more).json()
    run = system.run(["hello"], latent_steps=4, record=("messages", "states"), max_new_tokens=2)
    assert body["usage"]["latent_steps"] == 4
    (messages,), (states,) = body["latentmas"]["messages"], body["latentmas"]["states"]
    assert messages.keys() == run.messages.keys() and states.keys() == run.states.keys()
    for name, value in run.messages.items():
        torch.testing.assert_close(torch.tensor(messages[name]), value[0].float())
    streamed = chunks(post(system, CHAT | more | {"stream": True}).text)
    assert streamed[-1]["latentmas"]["messages"] == [messages]


def several_inputs() -> lm.System:
    graph = pair()
    graph = lm.Graph("two", inputs=["topic", "question"], rounds=1, latent_steps=1)
    tiny = next(iter(pair().spec().backbones.values()))
    graph.add_agent("only", lm.Backbone(tiny.source), prompt="{{ topic }}: {{ question }}")
    return load64(graph.output("only"))


def test_inputs_of_a_graph_by_name() -> None:
    two = several_inputs()
    want = two.run([{"topic": "art", "question": "hello"}]).text
    ask = {"model": "two", "messages": SAY}
    body = post(two, ask | {"inputs": {"topic": "art"}}).json()
    assert body["choices"][0]["message"]["content"] == want
    whole = {"inputs": {"topic": "art", "question": "hello"}}
    body = post(two, ask | whole | {"messages": []}).json()
    assert body["choices"][0]["message"]["content"] == want
    body = post(two, {"model": "two", "prompt": ""} | whole, "completions").json()
    assert body["choices"][0]["text"] == want
    assert "topic, question" in refused(post(two, ask), 400, param="messages")
    assert "send messages empty" in refused(post(two, ask | whole), 400, param="messages")
    wrong = refused(post(two, ask | {"inputs": {"tpic": "a"}}), 400, param="inputs.tpic")
    assert "did you mean 'topic'" in wrong
    lost = {"messages": [], "inputs": {"topic": "a"}}
    assert "input 'question'" in refused(post(two, ask | lost), 400, param="messages")


# --- conversations ----------------------------------------------------------------------------


CONVERSATION = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "Hi"}, {"type": "text", "text": "you"}]},
    {"role": "assistant", "content": "Hello!"},
    {"role": "user", "content": "And now?"},
]


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        (CONVERSATION, "Be brief.\n\nUser: Hi\nyou\n\nAssistant: Hello!\n\nUser: And now?"),
        ([CONVERSATION[0], CONVERSATION[3]], "Be brief.\n\nAnd now?"),
        (CONVERSATION[3:], "And now?"),
    ],
)
def test_a_conversation_becomes_one_text(system: lm.System, messages: Any, text: str) -> None:
    body = post(system, CHAT | HOT | {"messages": messages}).json()
    run = system.run([text], do_sample=True, temperature=1.3, seed=(3,))
    assert body["choices"][0]["message"]["content"] == run.text
    assert body["usage"]["prompt_tokens"] == sum(r.prompt_tokens for r in run.accounting)


def test_conversations_that_cannot_be_answered(system: lm.System) -> None:
    def why(messages: Any, param: str, **settings: Any) -> str:
        ask = CHAT | {"messages": messages}
        return refused(post(system, ask, settings=settings), 400, param=param)

    assert "answers a user" in why(CONVERSATION[:3], "messages.2.role")
    assert "'tool'" in why([{"role": "tool", "content": "x"}], "messages.0.role")
    picture = [{"type": "image_url", "image_url": {"url": "x"}}]
    assert "'image_url'" in why([{"role": "user", "content": picture}], "messages.0.content.0")
    assert "empty" in why([{"role": "user", "content": None}], "messages.0.content")
    assert "4 messages" in why(CONVERSATION, "messages", conversation="refuse")


# --- errors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "param", "says"),
    [
        ({"temprature": 1}, "temprature", "did you mean 'temperature'"),
        ({"temperature": -1}, "temperature", "greater than or equal to 0"),
        ({"temperature": "hot"}, "temperature", "valid number"),
        ({"top_p": 0}, "top_p", "greater than 0"),
        ({"n": 0}, "n", "greater than or equal to 1"),
        ({"n": 33, "temperature": 1}, "n", "at most 32"),
        ({"max_tokens": 5000}, "max_tokens", "at most 4096"),
        ({"max_completion_tokens": 5000}, "max_completion_tokens", "at most 4096"),
        ({"rounds": 17}, "rounds", "at most 16"),
        ({"latent_steps": 257}, "latent_steps", "at most 256"),
        ({"record": ["report"]}, "record.0", "'messages' or 'states'"),
        ({"messages": "hello"}, "messages", "valid list"),
        ({"messages": [{"content": "x"}]}, "messages.0.role", "missing"),
        ({"stop": ["x"] * 17}, "stop", "at most 16 items"),
        ({"stop": ["x" * 1001]}, "stop.0", "at most 1000 characters"),
        ({"tools": [{"type": "function"}]}, "tools", "not supported"),
        ({"response_format": {"type": "json_object"}}, "response_format", "not supported"),
        ({"logprobs": True}, "logprobs", "not supported"),
        ({"n": 2, "temperature": 0}, None, "n=2 would give 2 equal answers"),
        ({"latent_steps": 0}, None, "LM113"),
        ({"messages": [{"role": "user", "content": "x" * 5000}]}, None, "4096"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, None, "not Unicode"),
    ],
)  # fmt: skip
def test_bad_requests_say_what_is_wrong(
    system: lm.System, change: dict[str, Any], param: str | None, says: str
) -> None:
    for stream in (False, True):  # a stream begins only when its request has been checked
        message = refused(post(system, CHAT | change | {"stream": stream}), 400, param=param)
        assert says in message


def test_fields_without_effect_are_accepted(system: lm.System) -> None:
    more = {"user": "me", "metadata": {"a": "b"}, "tools": [], "logprobs": False, "top_logprobs": 0}
    more |= {"presence_penalty": 0.0, "response_format": {"type": "text"}, "logit_bias": None}
    assert post(system, CHAT | more).status_code == 200


def test_what_is_not_a_request(system: lm.System) -> None:
    assert "not valid JSON" in refused(post(system, b"{"), 400)
    assert "a JSON array" in refused(post(system, b"[]"), 400)
    assert "duplicate key" in refused(post(system, b'{"n": 1, "n": 2}'), 400)
    assert "nested" in refused(post(system, b'{"messages": ' + b"[" * 9999), 400)
    text = {"headers": {"content-type": "text/plain"}}
    assert "'text/plain'" in refused(post(system, CHAT, **text), 415)
    assert "1,000 bytes" in refused(
        post(system, b" " * 1001, settings={"max_body_bytes": 1000}), 413, code="request_too_large"
    )
    many = {"model": "pair", "prompt": ["a"] * 3}
    response = post(system, many, "completions", settings={"max_waiting": 2})
    assert "3 prompts" in refused(response, 400, param="prompt")
    other = CHAT | {"model": "gpt-9"}
    assert "'pair'" in refused(post(system, other), 404, param="model", code="model_not_found")
    assert "POST /v1/embeddings" in refused(post(system, {}, "embeddings"), 404)


def test_a_slow_body_is_given_up(system: lm.System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("latentmas.serve.http.completions._BODY_SECONDS", 0.1)

    async def slow() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()  # the rest never comes

    async def ask() -> Any:
        async with client(system) as made:
            kind = {"content-type": "application/json"}
            return await made.post("/v1/completions", content=slow(), headers=kind)

    assert "0.1 seconds" in refused(asyncio.run(ask()), 408)


def test_a_missing_extra_is_named(system: lm.System, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)
    with pytest.raises(lm.LatentMASError, match=r"pip install 'latentmas\[serve\]'"):
        create_app(system)


def test_an_error_of_our_own_is_not_shown(
    system: lm.System, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("something private")

    monkeypatch.setattr("latentmas.serve.http.completions.read_question", fail)
    message = refused(post(system, CHAT), 500, code="internal_error")
    assert "private" not in message and "ValueError" in message


# --- access -----------------------------------------------------------------------------------


def get(system: lm.System, path: str, headers: dict[str, str], **settings: Any) -> Any:
    async def ask() -> Any:
        async with client(system, **settings) as made:
            return await made.get(path, headers=headers)

    return asyncio.run(ask())


def test_keys(system: lm.System) -> None:
    keys = {"api_keys": ("first-key", "second-kéy")}
    for path in ("/v1/models", "/metrics", "/nowhere"):
        assert "Bearer KEY" in refused(get(system, path, {}, **keys), 401, code="invalid_api_key")
    for sent in ("Bearer wrong", "Bearer first-ke", "Basic first-key", "Bearer"):
        answer = get(system, "/v1/models", {"authorization": sent}, **keys)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
    for sent in ("Bearer first-key", "bearer second-kéy".encode()):
        assert get(system, "/v1/models", {"authorization": sent}, **keys).status_code == 200
    assert get(system, "/health", {}, **keys).json() == {"status": "ok"}


def test_other_hosts_and_origins(system: lm.System) -> None:
    hosts = {"allowed_hosts": ("localhost", "[::1]")}
    for host in ("localhost", "localhost:8000", "[::1]:8000"):
        assert get(system, "/health", {"host": host}, **hosts).status_code == 200
    assert "evil.example" in refused(get(system, "/health", {"host": "evil.example"}, **hosts), 421)
    origin = {"origin": "https://a.example"}
    allow = "access-control-allow-origin"
    assert allow not in get(system, "/v1/models", origin).headers
    some = get(system, "/v1/models", origin, cors_origins=("https://a.example",))
    assert some.headers[allow] == "https://a.example"


def test_models_and_metrics(system: lm.System) -> None:
    async def ask() -> str:
        async with client(system, model="my-team") as made:
            listed = (await made.get("/v1/models")).json()
            assert [model["id"] for model in listed["data"]] == ["my-team"]
            assert (await made.get("/v1/models/my-team")).json() == listed["data"][0]
            assert (await made.get("/v1/models/other")).status_code == 404
            chat = CHAT | {"model": "my-team", "max_tokens": 3}
            for _ in range(2):
                assert (await made.post("/v1/chat/completions", json=chat)).status_code == 200
            assert (await made.post("/v1/chat/completions", json=CHAT)).status_code == 404
            return (await made.get("/metrics")).text

    text = asyncio.run(ask())
    lines = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    assert lines['latentmas_prompts_total{outcome="finished"}'] == "2"
    assert lines["latentmas_completion_tokens_total"] == "6"
    assert lines["latentmas_latent_steps_total"] == "4"
    assert lines['latentmas_prompts{state="running"}'] == lines["latentmas_rows"] == "0"
    path = 'path="/v1/chat/completions"'
    assert lines[f'latentmas_http_responses_total{{{path},status="200"}}'] == "2"
    assert lines[f'latentmas_http_responses_total{{{path},status="404"}}'] == "1"
    assert lines['latentmas_request_seconds_bucket{le="+Inf"}'] == "2"
    declared = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    for name in lines:
        base = name.partition("{")[0]
        assert base in declared or base.rsplit("_", 1)[0] in declared, name


def test_an_address_that_is_taken(system: lm.System) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        with pytest.raises(lm.LatentMASError, match=r"cannot listen on 127\.0\.0\.1"):
            open_socket("127.0.0.1", sock.getsockname()[1])


# --- connections ------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_goes_frees_its_row(
    system: lm.System, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_slowly(monkeypatch)
    body = json.dumps(CHAT | {"stream": stream, "max_tokens": 4000}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n"
    with served(system) as (url, engine):
        address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        with socket.create_connection(address) as sock:
            sock.sendall(f"{head}Content-Type: application/json\r\n\r\n".encode() + body)
            until(lambda: engine._rows == 1)
            if stream:
                assert b"data: " in sock.recv(4096)
        until(lambda: engine._rows == 0)
        text = "\n".join(engine.metrics.lines())
        assert 'outcome="cancelled"} 1' in text and 'outcome="finished"} 0' in text


def test_the_playground_opens_without_a_key_and_asks_with_it(system: lm.System) -> None:
    async def ask() -> tuple[Any, Any, Any]:
        async with client(system, api_keys=("a-key",), playground=True) as made:
            page, body = await made.get("/"), {"inputs": {"question": "hello"}}
            without = await made.post("/playground/ask", json=body)
            key = {"authorization": "Bearer a-key"}
            return page, without, await made.post("/playground/ask", json=body, headers=key)

    page, without, with_key = asyncio.run(ask())
    assert page.status_code == 200 and "<title>" in page.text
    assert without.status_code == 401
    assert with_key.status_code == 200 and '"begin"' in with_key.text


def test_without_the_playground_there_is_no_page(system: lm.System) -> None:
    async def ask() -> tuple[Any, Any]:
        async with client(system, api_keys=("a-key",)) as locked, client(system) as made:
            return await locked.get("/"), await made.get("/")

    locked, found = asyncio.run(ask())
    assert (locked.status_code, found.status_code) == (401, 404)
