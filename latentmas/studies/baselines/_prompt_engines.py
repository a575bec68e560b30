"""Language models that criticise and rewrite prompts: an endpoint, or a backbone of the team."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from latentmas.errors import LatentMASError
from latentmas.plan import Plan
from latentmas.runtime import System
from latentmas.spec import Graph
from latentmas.studies.baselines._base import load_alone

__all__ = ["ask_endpoint", "ask_own_model", "engine_of", "logged_in"]

Ask = Callable[[str, str], str]
"""Takes a prompt and a system turn; returns the answer."""


@contextmanager
def logged_in(folder: Path) -> Iterator[Any]:
    """The package textgrad, which makes a folder for logs when it is imported.

    Args:
        folder: Folder for its logs, unless TEXTGRAD_LOG_DIR names another.
    """
    # litellm, which textgrad imports, would ask the network for a list of prices.
    wanted = {
        "TEXTGRAD_LOG_DIR": str(folder / "textgrad-logs"),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    }
    added = [name for name in wanted if name not in os.environ]
    os.environ.update({name: wanted[name] for name in added})
    try:
        import textgrad

        yield textgrad
    finally:
        for name in added:
            os.environ.pop(name, None)


def ask_endpoint(url: str, model: str | None, key_variable: str, most: int) -> Ask:
    """A model behind an endpoint with OpenAI's API.

    Args:
        url: Base URL, such as `http://localhost:8000/v1`.
        model: Name of the model; None asks the endpoint, and takes its first.
        key_variable: Environment variable with the API key; a local server may need none.
        most: Maximum number of tokens in an answer.

    Raises:
        LatentMASError: The endpoint does not list its models.
    """
    from openai import OpenAI, OpenAIError

    client = OpenAI(base_url=url, api_key=os.environ.get(key_variable) or "none")
    try:
        name = model or client.models.list().data[0].id
    except (OpenAIError, IndexError) as error:
        raise LatentMASError(
            f"baseline 'textgrad': {url} does not list its models ({error}); start the server, or "
            "name the model with engine_model"
        ) from error

    def ask(prompt: str, system: str) -> str:
        turns: Any = [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
        try:
            found = client.chat.completions.create(
                model=name, messages=turns, max_tokens=most, temperature=0.0
            )
        except OpenAIError as error:
            raise LatentMASError(f"baseline 'textgrad': {url} does not answer: {error}") from error
        return found.choices[0].message.content or ""

    return ask


def ask_own_model(team: System, most: int) -> Ask:
    """The backbone of the team's output agent.

    Args:
        team: The team.
        most: Maximum number of tokens in an answer.
    """
    plan: Plan = team.plan
    agent = plan.graph.agent(plan.output)
    graph = Graph("engine", inputs=["prompt", "system"], rounds=1)
    graph.add_agent(
        "engine",
        plan.graph.backbones[agent.backbone],
        prompt="{{ prompt }}",
        system="{{ system }}",
        chat_options=agent.chat_options,
        max_new_tokens=most,
    )
    engine = load_alone(team, graph.output("engine"))
    return lambda prompt, system: engine.run([{"prompt": prompt, "system": system}]).texts[0]


def engine_of(ask: Ask, counts: dict[str, int]) -> Any:
    """An engine for the package textgrad.

    Args:
        ask: Asks a model.
        counts: Takes the number of calls, as `"engine_calls"`.
    """
    from textgrad.engine import EngineLM

    class Engine(EngineLM):  # type: ignore[misc]  # textgrad has no types
        model_string = "latentmas"

        def generate(self, prompt: Any, system_prompt: str | None = None, **_: Any) -> str:
            counts["engine_calls"] = counts.get("engine_calls", 0) + 1
            return ask(str(prompt), system_prompt or self.system_prompt)

        def __call__(self, prompt: Any, system_prompt: str | None = None, **more: Any) -> str:
            return self.generate(prompt, system_prompt, **more)

    return Engine()
