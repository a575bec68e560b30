"""A server under load: 64 clients on loopback, with streams, disconnects and mixed lengths.

    python benchmarks/serve_load.py [--seconds N] [--clients N] [--json FILE]

A tiny team with random weights is served by uvicorn in this process. Clients ask without a pause;
some read streams, and some of these close the connection in the middle. Afterwards each answer is
compared with that of `System.run` for the same request alone. The team computes in fp64: in fp32,
the rounding of a batch moves a draw now and then (`--dtype float32` counts how often). Throughput
is compared with the same requests one after another, in the same process.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import openai
import uvicorn

import latentmas as lm
from latentmas.environment import hardware
from latentmas.serve import Engine, create_app
from latentmas.testing import tiny_backbone

KINDS = ("whole", "stream", "leave")
"""What a client does: waits for the whole answer, reads a stream, or leaves in the middle of it."""
WARM = 4
"""Requests of each client before memory is measured."""
TEMPERATURES = (0.0, 0.7, 1.0, 1.3)


def team(dtype: str) -> lm.System:
    """Two agents on one tiny backbone; the weights let answers depend on the question."""
    tiny = tiny_backbone("qwen3", 64, layers=4, initializer_range=0.12)
    graph = lm.Graph("tiny", inputs=["question"], rounds=1, latent_steps=4)
    graph.add_agent("reader", tiny, prompt="Read: {{ question }}")
    graph.add_agent("writer", tiny, prompt="{{ reader }} {{ question }}")
    graph.connect("reader", "writer", link="recursive")
    system = graph.output("writer").compile().load(dtype=dtype)
    return system.double() if dtype == "float64" else system


@dataclass
class Load:
    """What clients ask, and what they have got."""

    seconds: float
    answers: dict[str, tuple[dict[str, Any], str]] = field(default_factory=dict)
    """Request and answer, by the question."""
    counts: Counter[str] = field(default_factory=Counter)
    waits: list[float] = field(default_factory=list)
    """Seconds from request to whole answer."""

    def question(self, draw: random.Random, number: str) -> dict[str, Any]:
        """A request: its length, limits and sampling are drawn."""
        words = " ".join(
            draw.choice(("red", "green", "blue")) for _ in range(draw.randrange(1, 25))
        )
        return {
            "messages": [{"role": "user", "content": f"{number} {words}"}],
            "temperature": draw.choice(TEMPERATURES),
            "seed": draw.randrange(1 << 30),
            "max_tokens": draw.choice((4, 16, 64, 128)),
        }

    async def client(self, api: openai.AsyncOpenAI, name: int) -> None:
        """Ask without a pause until the time is over."""
        draw, end, number = random.Random(name), time.monotonic() + self.seconds, 0
        while time.monotonic() < end:
            number += 1
            asked = self.question(draw, f"{name}.{number}")
            kind, began = draw.choices(KINDS, (4, 3, 1))[0], time.monotonic()
            try:
                text = await self._ask(api, kind, asked, draw)
            except openai.APIError as error:
                self.counts[type(error).__name__] += 1
                continue
            self.counts[kind] += 1
            if kind != "leave":
                self.waits.append(time.monotonic() - began)
                self.answers[f"{name}.{number}"] = (asked, text)

    @staticmethod
    async def _ask(
        api: openai.AsyncOpenAI, kind: str, asked: dict[str, Any], draw: random.Random
    ) -> str:
        if kind == "whole":
            answer = await api.chat.completions.create(model="tiny", **asked)
            return answer.choices[0].message.content or ""
        text, left = "", draw.randrange(1, 6) if kind == "leave" else -1
        stream = await api.chat.completions.create(model="tiny", stream=True, **asked)
        async with stream:
            async for chunk in stream:
                text += chunk.choices[0].delta.content or ""
                left -= 1
                if left == 0:
                    break
        return text


def alone(system: lm.System, asked: dict[str, Any]) -> tuple[str, int]:
    """The answer to a request that runs alone, and its number of tokens."""
    hot = asked["temperature"] > 0
    drawn = {"do_sample": True, "temperature": asked["temperature"]} if hot else {}
    run = system.run(
        [asked["messages"][0]["content"]],
        seed=(asked["seed"],),
        max_new_tokens=asked["max_tokens"],
        **drawn,
    )
    return run.text, len(run.token_ids[0])


def resident() -> float:
    """Resident memory of this process in MiB."""
    gc.collect()
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


@contextmanager
def served(system: lm.System) -> Iterator[tuple[str, Engine]]:
    """The team behind uvicorn on a free port."""
    app = create_app(system)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", ws="none"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{sock.getsockname()[1]}/v1", app.state.engine
        server.should_exit = True
        thread.join()


async def drive(url: str, clients: int, load: Load) -> list[float]:
    """All clients at once; resident memory at the beginning, at each quarter and at the end."""
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=600) as api:
        asked = [asyncio.ensure_future(load.client(api, name)) for name in range(clients)]
        memory = [resident()]
        for _ in range(4):
            await asyncio.sleep(load.seconds / 4)
            memory.append(resident())
        await asyncio.gather(*asked)
    return [*memory, resident()]


async def warm(url: str, clients: int) -> None:
    """Requests that let the process take the memory that it keeps for good."""
    load = Load(0.0)
    async with openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0, timeout=600) as api:
        for block in range(WARM):
            draw = random.Random(block)
            asked = [load.question(draw, f"warm {i}") | {"max_tokens": 16} for i in range(clients)]
            answers = (api.chat.completions.create(model="tiny", **one) for one in asked)
            await asyncio.gather(*answers)


def sequential(system: lm.System, load: Load, seconds: float) -> dict[str, float]:
    """Compare every answer with that of its request alone, and time these."""
    wrong, tokens, began, cpu = 0, 0, time.perf_counter(), time.process_time()
    timed: tuple[int, int, float, float] | None = None

    def now(done: int) -> tuple[int, int, float, float]:
        return done, tokens, time.perf_counter() - began, time.process_time() - cpu

    for done, (asked, text) in enumerate(load.answers.values(), start=1):
        want, count = alone(system, asked)
        wrong += want != text
        tokens += count
        if timed is None and time.perf_counter() - began > seconds:
            timed = now(done)
    timed = timed or now(len(load.answers))
    return {
        "wrong_answers": wrong,
        "tokens": tokens,
        "sequential_requests_per_second": timed[0] / timed[2],
        "sequential_tokens_per_second": timed[1] / timed[2],
        "sequential_tokens_per_cpu_second": timed[1] / timed[3],
    }


def measure(seconds: float, clients: int, dtype: str) -> dict[str, Any]:
    """Serve, load, compare."""
    system = team(dtype)
    with served(system) as (url, engine):
        asyncio.run(warm(url, clients))
        load, cpu, began = Load(seconds), time.process_time(), time.perf_counter()
        memory = asyncio.run(drive(url, clients, load))
        took, cpu = time.perf_counter() - began, time.process_time() - cpu
        while engine._active or engine._waiting:
            time.sleep(0.01)
    found = sequential(system, load, seconds)
    waits = sorted(load.waits)
    return {
        "clients": clients,
        "dtype": dtype,
        "seconds": round(took, 1),
        "cpu_seconds": round(cpu, 1),
        "requests": dict(load.counts),
        "answers_compared": len(load.answers),
        "wrong_answers": found["wrong_answers"],
        "requests_per_second": round(len(load.answers) / took, 2),
        "tokens_per_second": round(found["tokens"] / took, 1),
        "tokens_per_cpu_second": round(found["tokens"] / cpu, 1),
        **{name: round(value, 2) for name, value in found.items() if name.startswith("sequential")},
        "seconds_median": round(waits[len(waits) // 2], 2),
        "seconds_p95": round(waits[int(len(waits) * 0.95)], 2),
        "rss_mib": [round(value, 1) for value in memory],
        "rows_left": engine._batch.rows,
    }


def main() -> None:
    """Read the flags, measure and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="duration of the load")
    parser.add_argument("--clients", type=int, default=64, help="clients at once")
    parser.add_argument("--dtype", default="float64", choices=("float32", "float64"))
    parser.add_argument("--json", type=Path, help="file for the figures")
    given = parser.parse_args()
    found = measure(given.seconds, given.clients, given.dtype)
    result = {"hardware": hardware(), **found}
    print(json.dumps(result, indent=2))
    if given.json is not None:
        given.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if found["wrong_answers"] and given.dtype == "float64" else 0)


if __name__ == "__main__":
    main()
