"""Teams as models of inspect-ai: `inspect eval task.py --model latentmas/<team>`.

inspect-ai finds this module through the entry point group `inspect_ai`.
"""

from __future__ import annotations

import math
from typing import Any

from latentmas.errors import LatentMASError
from latentmas.evaluation.adapters._batcher import MicroBatcher
from latentmas.evaluation.adapters._team import (
    Seeds,
    check_input,
    open_system,
    read_options,
    sampled,
)
from latentmas.plan import RunOptions
from latentmas.runtime import SampleEnd

try:
    from inspect_ai.model import (
        ChatCompletionChoice,
        ChatMessage,
        ChatMessageAssistant,
        GenerateConfig,
        ModelAPI,
        ModelOutput,
        ModelUsage,
        modelapi,
    )
    from inspect_ai.tool import ToolChoice, ToolInfo
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "teams as models of inspect-ai need inspect-ai; install it with: "
        "pip install 'latentmas[inspect]'",
        name=error.name,
    ) from error

__all__ = ["TeamAPI", "latentmas"]

_OWN = ("input", "device", "dtype", "batch_size")
_REFUSED = (
    *("logprobs", "top_logprobs", "prompt_logprobs", "logit_bias", "best_of", "response_schema"),
    *("frequency_penalty", "presence_penalty", "reasoning_tokens", "reasoning_effort"),
)
_STOP_REASONS = {"stop": "stop", "length": "max_tokens"}


@modelapi(name="latentmas")
def latentmas() -> type[ModelAPI]:
    """The provider; inspect-ai calls this for models named `latentmas/…`."""
    return TeamAPI


class TeamAPI(ModelAPI):
    """A team as a model of inspect-ai; requests that arrive together run as one batch."""

    def __init__(
        self,
        model_name: str,
        base_url: str | None = None,
        api_key: str | None = None,
        config: GenerateConfig = GenerateConfig(),  # noqa: B008 - as inspect-ai declares it
        *,
        input: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int = 32,
        **options: Any,
    ) -> None:
        """Load the team.

        Args:
            model_name: Graph file, or folder or Hub repository of a saved team.
            base_url: Not used.
            api_key: Not used.
            config: Settings that apply to every request.
            input: Input of the graph that takes the prompt. Default: the only one.
            device: Device for all agents.
            dtype: Data type of the backbones, overriding what they declare.
            batch_size: Maximum number of requests that run together.
            **options: Options of a run, such as `rounds`, `latent_steps` and `max_new_tokens`.

        Raises:
            LatentMASError: The team cannot be loaded, or an option is wrong.
            TypeError: An argument is unknown.
        """
        super().__init__(model_name, base_url, api_key, [], config)
        self._options = read_options("latentmas", options, _OWN)
        seed = self._options.seed if isinstance(self._options.seed, int) else 0
        self._seeds = Seeds(seed)
        self._batch_size = self._options.replace(batch_size=batch_size).batch_size
        self._system = open_system(model_name, device=device, dtype=dtype, seed=seed)
        self._input = check_input(self._system, input)
        self._batcher = MicroBatcher(self._system, batch_size=batch_size)

    async def generate(
        self,
        input: list[ChatMessage],
        tools: list[ToolInfo],
        tool_choice: ToolChoice,
        config: GenerateConfig,
    ) -> ModelOutput:
        """Answer one conversation, which is given to the graph as one text.

        Args:
            input: Messages of the system and of the user.
            tools: Must be empty; the agents of a graph have tools of their own.
            tool_choice: Not used.
            config: Settings of this request.

        Raises:
            LatentMASError: The team cannot serve the request, or the run failed.
        """
        import anyio

        if tools:
            names = ", ".join(tool.name for tool in tools)
            raise LatentMASError(
                f"a team cannot call the harness's tools, but the task passes: {names}; give tools "
                "to the agents of the graph (add_agent(tools=[…])), or choose a task without tools"
            )
        prompt = _prompt(input)
        options = _run_options(self._options, config)
        if config.seed is None:
            options = options.replace(seed=self._seeds.next(prompt))
        future = self._batcher.submit({self._input: prompt}, options)
        try:
            # One waiting thread for each request works under asyncio and trio alike.
            end = await anyio.to_thread.run_sync(
                future.result,
                abandon_on_cancel=True,
                limiter=anyio.CapacityLimiter(math.inf),
            )
        finally:
            future.cancel()  # without effect on an answer that is being written
        return _output(self.model_name, end)

    def max_connections(self) -> int:
        """Maximum number of requests at a time: as many as run together."""
        return self._batch_size

    def connection_key(self) -> str:
        """Scope of `max_connections`: this team."""
        return f"latentmas/{self.model_name}"

    def max_tokens(self) -> int | None:
        """Default of `max_tokens`; None leaves it to the agents."""
        return None

    async def aclose(self) -> None:
        """Withdraw waiting requests and end the engine thread."""
        import anyio

        await anyio.to_thread.run_sync(self._batcher.close)

    def close(self) -> None:
        """Same as `aclose`, outside an event loop."""
        self._batcher.close()


def _prompt(messages: list[ChatMessage]) -> str:
    """The conversation as one text: system messages and user messages, in their order."""
    for message in messages:
        if message.role not in ("system", "user"):
            raise LatentMASError(
                f"a team answers one text, but the conversation has a message of the role "
                f"{message.role!r}; choose a solver that asks the model once"
            )
        if not isinstance(message.content, str):
            kinds = {content.type for content in message.content} - {"text"}
            if kinds:
                raise LatentMASError(
                    f"a team reads text, but a message holds: {', '.join(sorted(kinds))}"
                )
    return "\n\n".join(message.text for message in messages)


def _run_options(base: RunOptions, config: GenerateConfig) -> RunOptions:
    """Options of one request: those of the model, with inspect-ai's settings in their place."""
    refused = [name for name in _REFUSED if getattr(config, name, None) not in (None, False)]
    if refused:
        raise LatentMASError(
            f"a team cannot serve {', '.join(refused)}; leave out these settings of generation"
        )
    given = {
        "max_new_tokens": config.max_tokens,
        "seed": config.seed,
        "stop": tuple(config.stop_seqs) if config.stop_seqs else None,
        "num_return_sequences": config.num_choices,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    chosen = sampled(None, config.temperature, config.top_p, config.top_k)
    return base.replace(**changes, **chosen)


def _output(name: str, end: SampleEnd) -> ModelOutput:
    cost = end.cost
    choices = [
        ChatCompletionChoice(
            message=ChatMessageAssistant(content=text, model=name, source="generate"),
            stop_reason=_STOP_REASONS.get(reason, "unknown"),
        )
        for text, reason in zip(end.texts, end.finish_reasons, strict=True)
    ]
    return ModelOutput(
        model=name,
        choices=choices,
        usage=ModelUsage(
            input_tokens=cost.prompt_tokens,
            output_tokens=cost.new_tokens,
            total_tokens=cost.prompt_tokens + cost.new_tokens,
        ),
        metadata={"latent_steps": cost.latent_steps},
    )
