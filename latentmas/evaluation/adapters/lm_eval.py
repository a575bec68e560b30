"""Teams as models of lm-evaluation-harness.

lm-eval finds models by import alone, so its command line is started from here:
`python -m latentmas.evaluation.adapters.lm_eval --model latentmas --model_args team=… --tasks …`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from latentmas.errors import DataError, LatentMASError
from latentmas.evaluation.adapters._team import (
    Seeds,
    check_input,
    open_system,
    read_options,
    sampled,
)
from latentmas.plan import RunOptions
from latentmas.redact import get_logger

try:
    from lm_eval.api.instance import Instance
    from lm_eval.api.model import LM
    from lm_eval.api.registry import register_model
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "teams as models of lm-evaluation-harness need lm-eval; install it with: "
        "pip install 'latentmas[lm-eval]'",
        name=error.name,
    ) from error

__all__ = ["TeamLM", "main"]

log = get_logger("latentmas.evaluation")
_OWN = ("team", "input", "device", "dtype", "batch_size")
_SETTINGS = ("until", "max_gen_toks", "do_sample", "temperature", "top_p", "top_k")


@register_model("latentmas")
class TeamLM(LM):
    """A team as a model of lm-eval, for generative tasks."""

    def __init__(
        self,
        team: str,
        *,
        input: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        **options: Any,
    ) -> None:
        """Load the team.

        Args:
            team: Graph file, or folder or Hub repository of a saved team.
            input: Input of the graph that takes the prompt. Default: the only one.
            device: Device for all agents. lm-eval passes `cuda:0` by default; without CUDA, the CPU
                is used in its place.
            dtype: Data type of the backbones, overriding what they declare.
            batch_size: Maximum number of requests that run together; None or `"auto"`: 32.
            max_batch_size: Not used.
            **options: Options of a run, such as `rounds`, `latent_steps` and `max_new_tokens`.

        Raises:
            LatentMASError: The team cannot be loaded, or an option is wrong.
            TypeError: An argument is unknown.
        """
        super().__init__()
        base = read_options("latentmas", options, _OWN)
        self._options = base.replace(batch_size=_batch_size(batch_size))
        self._seed = base.seed if isinstance(base.seed, int) else 0
        self._system = open_system(team, device=_device(device), dtype=dtype, seed=self._seed)
        self._input = check_input(self._system, input)

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Texts for prompts; requests with equal settings run together.

        Args:
            requests: Each with a prompt and its settings.
            disable_tqdm: Not used.

        Raises:
            LatentMASError: A setting cannot be served, or the run failed.
        """
        seeds, base = Seeds(self._seed), self._options
        groups: dict[str, tuple[RunOptions, list[int]]] = {}
        for number, request in enumerate(requests):
            options = _run_options(base, request.args[1])
            groups.setdefault(options.model_dump_json(), (options, []))[1].append(number)
        drawn = [seeds.next(request.args[0]) for request in requests]
        texts = dict[int, str]()
        for options, numbers in groups.values():
            prompts = [{self._input: requests[number].args[0]} for number in numbers]
            own = options.replace(seed=tuple(drawn[number] for number in numbers))
            texts |= zip(numbers, self._system.run(prompts, options=own).texts, strict=True)
        for number, request in enumerate(requests):
            self.cache_hook.add_partial("generate_until", request.args, texts[number])
        return [texts[number] for number in range(len(requests))]

    def loglikelihood(self, requests: list[Instance], **_: Any) -> NoReturn:
        """Not available: a team gives texts, not probabilities of given texts."""
        raise _no_likelihood("loglikelihood")

    def loglikelihood_rolling(self, requests: list[Instance], **_: Any) -> NoReturn:
        """Not available: a team gives texts, not probabilities of given texts."""
        raise _no_likelihood("loglikelihood_rolling")

    @property
    def tokenizer_name(self) -> str:
        """Not available: each agent has a tokenizer and a chat template of its own."""
        raise _no_template()

    def chat_template(self, chat_template: bool | str = False) -> NoReturn:
        """Not available: each agent applies its own chat template."""
        raise _no_template()

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> NoReturn:
        """Not available: each agent applies its own chat template."""
        raise _no_template()


def main() -> None:
    """Start lm-eval's command line, with the model `latentmas` registered."""
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()


def _device(given: str | None) -> str | None:
    import torch

    if given is not None and given.startswith("cuda") and not torch.cuda.is_available():
        log.warning("CUDA is not available; the team runs on the CPU instead of %s", given)
        return "cpu"
    return given


def _batch_size(given: int | str | None) -> int:
    if given is None or str(given).startswith("auto"):
        return RunOptions().batch_size
    if not str(given).isdecimal():
        raise LatentMASError(f"batch_size is {given!r}; give a whole number of at least 1, or auto")
    return int(given)


def _run_options(base: RunOptions, settings: Mapping[str, Any]) -> RunOptions:
    """Options of one request: those of the model, with lm-eval's settings in their place."""
    if unknown := sorted(set(settings) - set(_SETTINGS)):
        raise DataError(
            f"generation_kwargs of the task: a team cannot serve {', '.join(unknown)}; it takes "
            f"{', '.join(_SETTINGS)}; override the others with --gen_kwargs, or change the task"
        )
    limit = settings.get("max_gen_toks")
    changes = {} if limit is None else {"max_new_tokens": limit}
    stop = _texts(settings.get("until"))
    temperature = settings.get("temperature")
    do_sample = settings.get("do_sample")
    chosen = sampled(
        bool(temperature) if do_sample is None else do_sample,
        temperature,
        settings.get("top_p"),
        settings.get("top_k"),
    )
    return base.replace(**changes, stop=stop, **chosen)


def _texts(until: str | Sequence[str] | None) -> tuple[str, ...]:
    texts = (until,) if isinstance(until, str) else tuple(until or ())
    return tuple(text for text in texts if text)


def _no_likelihood(name: str) -> NotImplementedError:
    return NotImplementedError(
        f"{name}: a team writes one answer in its last round and gives no probabilities of given "
        "texts; choose tasks with `output_type: generate_until`, such as gsm8k"
    )


def _no_template() -> NotImplementedError:
    return NotImplementedError(
        "the prompt goes into an input of the graph, and each agent applies its own chat template; "
        "leave out --apply_chat_template"
    )


if __name__ == "__main__":
    main()
