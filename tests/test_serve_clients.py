"""The server asked by clients that people use: openai, LangChain, pydantic-ai and LiteLLM."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

import latentmas as lm
from latentmas.serve import Engine
from tests.served import pair, served, soon, write_slowly
from tests.teams import load64

HELLO = [{"role": "user", "content": "hello"}]
HOT: dict[str, Any] = {"temperature": 1.3, "seed": 3, "max_tokens": 20}


@pytest.fixture(scope="module")
def system() -> lm.System:
    return load64(pair())


@pytest.fixture(scope="module")
def url(system: lm.System) -> Iterator[str]:
    with served(system, api_keys=("a-secret-key",), request_seconds=600) as (found, _):
        yield f"{found}/v1"


def expected(system: lm.System, text: str = "hello", seed: int = 3) -> str:
    return system.run([text], do_sample=True, temperature=1.3, seed=(seed,), max_new_tokens=20).text


@pytest.fixture
def client(url: str) -> Iterator[Any]:
    openai = pytest.importorskip("openai")
    with openai.OpenAI(base_url=url, api_key="a-secret-key", max_retries=0) as made:
        yield made


def test_openai_whole_and_streamed(system: lm.System, client: Any) -> None:
    whole = client.chat.completions.create(model="pair", messages=HELLO, **HOT)
    assert whole.choices[0].message.content == expected(system)
    assert whole.usage.latent_steps == 2
    usage, text = {"include_usage": True}, ""
    with client.chat.completions.create(
        model="pair", messages=HELLO, stream=True, stream_options=usage, **HOT
    ) as chunks:
        for chunk in chunks:
            text += (chunk.choices[0].delta.content or "") if chunk.choices else ""
    assert text == expected(system)
    assert chunk.usage == whole.usage
    completed = client.completions.create(model="pair", prompt=["hello", "bye"], **HOT)
    assert [c.text for c in completed.choices] == [expected(system), expected(system, "bye")]
    assert [model.id for model in client.models.list()] == ["pair"]
    team = {"latent_steps": 4, "inputs": {"question": "x"}, "record": "messages"}
    asked = client.chat.completions.create(model="pair", messages=[], extra_body=team)
    assert asked.usage.latent_steps == 4
    assert len(asked.latentmas["messages"][0]["round1.reader->writer"]) == 4


def test_eight_openai_requests_at_once(system: lm.System, url: str) -> None:
    openai = pytest.importorskip("openai")

    async def ask() -> list[str]:
        async with openai.AsyncOpenAI(base_url=url, api_key="a-secret-key") as client:

            async def one(i: int) -> str:
                own = HOT | {"seed": i, "stream": i % 2 == 0}
                messages = [{"role": "user", "content": f"question {i}"}]
                answer = await client.chat.completions.create(
                    model="pair", messages=messages, **own
                )
                if i % 2:
                    return answer.choices[0].message.content
                return "".join([c.choices[0].delta.content or "" async for c in answer])

            return await asyncio.gather(*map(one, range(8)))

    assert asyncio.run(ask()) == [expected(system, f"question {i}", i) for i in range(8)]


def test_errors_are_of_the_types_of_openai(client: Any, url: str) -> None:
    openai = pytest.importorskip("openai")

    def ask(client: Any = client, **change: Any) -> None:
        client.chat.completions.create(**{"model": "pair", "messages": HELLO, **change})

    with pytest.raises(openai.NotFoundError, match="does not exist") as caught:
        ask(model="gpt-9")
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError, match="at most 4096"):
        ask(max_tokens=5000)
    with pytest.raises(openai.BadRequestError, match="did you mean 'rounds'"):
        ask(extra_body={"round": 2})
    with pytest.raises(openai.BadRequestError, match="4096"):
        ask(messages=[{"role": "user", "content": "x" * 5000}], stream=True)
    stranger = openai.OpenAI(base_url=url, api_key="another", max_retries=0)
    with stranger, pytest.raises(openai.AuthenticationError, match="API key"):
        ask(stranger)


def test_a_full_queue_and_a_time_limit(system: lm.System, monkeypatch: pytest.MonkeyPatch) -> None:
    openai = pytest.importorskip("openai")
    write_slowly(monkeypatch)

    async def ask(url: str, engine: Engine) -> list[Any]:
        how = {"base_url": f"{url}/v1", "api_key": "none", "max_retries": 0}
        async with openai.AsyncOpenAI(**how) as client:

            async def one(stream: bool) -> Any:
                answer = await client.chat.completions.create(
                    model="pair", messages=HELLO, max_tokens=4000, stream=stream
                )
                return [chunk async for chunk in answer] if stream else answer

            first = asyncio.ensure_future(one(True))
            await soon(lambda: engine._rows == 1)
            rest = [asyncio.ensure_future(one(False)) for _ in range(3)]
            await soon(lambda: sum(other.done() for other in rest) == 2)
            for ticket in engine._tickets():
                ticket.deadline = 0.0  # as if its time were over
            return await asyncio.gather(first, *rest, return_exceptions=True)

    with served(system, max_rows=1, max_waiting=1, request_seconds=500) as (url, engine):
        first, *rest = asyncio.run(ask(url, engine))
    assert isinstance(first, openai.APIError) and "within 500 seconds" in str(first)
    kinds = sorted(type(error).__name__ for error in rest)
    assert kinds == ["InternalServerError", "RateLimitError", "RateLimitError"]


def test_langchain(system: lm.System, url: str) -> None:
    langchain = pytest.importorskip("langchain_openai")
    how = {"max_tokens": 20, "temperature": 1.3, "seed": 3}
    model = langchain.ChatOpenAI(model="pair", base_url=url, api_key="a-secret-key", **how)
    answer = model.invoke("hello")
    assert answer.content == expected(system)
    assert answer.usage_metadata["output_tokens"] > 0
    assert "".join(chunk.content for chunk in model.stream("hello")) == expected(system)
    joined = model.invoke([("system", "Be brief."), ("user", "hello")])
    assert joined.content == expected(system, "Be brief.\n\nhello")
    more = model.bind(extra_body={"latent_steps": 3}).invoke("hello")
    assert more.response_metadata["token_usage"]["latent_steps"] == 3


@pytest.mark.filterwarnings("ignore")  # of the client's own modules
def test_pydantic_ai(system: lm.System, url: str) -> None:
    pytest.importorskip("pydantic_ai")
    from pydantic_ai import Agent
    from pydantic_ai.models.openai import OpenAIChatModel
    from pydantic_ai.providers.openai import OpenAIProvider

    provider = OpenAIProvider(base_url=url, api_key="a-secret-key")
    agent = Agent(OpenAIChatModel("pair", provider=provider), instructions="Be brief.")
    result = agent.run_sync("hello", model_settings=HOT)
    assert result.output == expected(system, "Be brief.\n\nhello")
    assert result.usage.output_tokens > 0

    async def streamed() -> str:
        async with agent.run_stream("hello", model_settings=HOT) as run:
            return await run.get_output()

    assert asyncio.run(streamed()) == result.output


@pytest.mark.filterwarnings("ignore")  # of the client's own modules
def test_litellm(system: lm.System, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # else it asks the network
    litellm = pytest.importorskip("litellm")
    how = {"model": "openai/pair", "api_base": url, "api_key": "a-secret-key"}
    answer = litellm.completion(messages=HELLO, **how, **HOT)
    assert answer.choices[0].message.content == expected(system)
    chunks = litellm.completion(messages=HELLO, stream=True, **how, **HOT)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == expected(system)
    more = litellm.completion(messages=HELLO, extra_body={"latent_steps": 3}, **how)
    assert more.usage.latent_steps == 3
    with pytest.raises(litellm.BadRequestError, match="at most 4096"):
        litellm.completion(messages=HELLO, max_tokens=5000, **how)
