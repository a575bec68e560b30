"""`System`: a plan with weights. Only links are parameters; backbones are frozen and apart.

Shapes: `B` batch, `K` latent steps, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from latentmas.backbones import LoadedBackbone
from latentmas.errors import UnknownNameError, spelled
from latentmas.links import Link
from latentmas.plan import Plan, TokenLimit, with_limits
from latentmas.runtime.assembly import check_chat_template
from latentmas.runtime.calling import tool_schemas
from latentmas.runtime.checks import seeds, strings, whole
from latentmas.runtime.choice import (
    AUTO,
    Choice,
    choose_executor,
    choose_refill,
    executor_name,
    known_executor,
    make_executor,
)
from latentmas.runtime.describing import describe
from latentmas.runtime.events import Watcher
from latentmas.runtime.executors._base import Executor
from latentmas.runtime.feeds import PositionMode, check_position_mode
from latentmas.runtime.history import Origin, Score, TrainingRecord
from latentmas.runtime.initialise import attach_links, build_links, sketch_links, start_links
from latentmas.runtime.interpreter import EditMessage, Value
from latentmas.runtime.options import OnError, read_options
from latentmas.runtime.placement import (
    check_dtype,
    check_plan,
    check_system,
    link_key,
    load_backbones,
    place_agents,
    place_links,
)
from latentmas.runtime.result import RunResult
from latentmas.runtime.run import judge_samples, run_batches
from latentmas.runtime.samples import Sample, check_samples, read_samples
from latentmas.runtime.sampling import Sampling
from latentmas.runtime.sharing import Sharing
from latentmas.runtime.steering import Retry
from latentmas.runtime.streaming import OnText, TextWatcher, stream
from latentmas.runtime.taps import Tap, TapEdit, Taps
from latentmas.runtime.toolbox import check_text_functions, find_tools, outside_text
from latentmas.spec import TextFunction, class_only
from latentmas.tools import Tool

if TYPE_CHECKING:
    from latentmas.cost import Explanation, Hardware
    from latentmas.io import RunRecorder

__all__ = ["System"]


class System(Sharing, nn.Module):
    """A runnable team: a plan, its frozen backbones and its links.

    `parameters()` and `state_dict()` hold the links alone, in fp32. `to`, `cuda`, `double` and the
    like move backbones and links together.
    """

    def __init__(
        self,
        plan: Plan,
        links: Mapping[str, Link],
        serving: Mapping[str, LoadedBackbone],
        *,
        executor: str = AUTO,
        text_functions: Mapping[str, TextFunction] | None = None,
        tools: Mapping[str, Tool] | None = None,
    ) -> None:
        """Put the parts together; `System.load` and `Plan.load` make them.

        Args:
            plan: what is run.
            links: by id.
            serving: the loaded backbone of each agent.
            executor: name of the default executor; `"auto"`: `cuda_graph` where it applies, else
                `cached`.
            text_functions: of the plan's text sources without a constant.
            tools: by name; registered ones are found without.
        """
        super().__init__()
        self.plan = plan
        self.links = nn.ModuleDict({link_key(id): link for id, link in links.items()})
        self.serving = dict(serving)
        attach_links(plan, links, self.serving)
        self.executor = known_executor(executor)
        self.text_functions = dict(text_functions or {})
        check_text_functions(plan, self.text_functions)
        self.tools = find_tools(plan, tools or {})
        self.taps = Taps()
        self.origin = Origin()
        self.history: list[TrainingRecord] = []
        """Trainings of these links, in their order; saved with the team."""
        self.scores: list[Score] = []
        """Measured results; saved with the team."""

    @class_only
    def load(
        cls,
        plan: Plan,
        *,
        device: str | Mapping[str, str] | None = None,
        dtype: str | None = None,
        seed: int = 0,
        executor: str = AUTO,
        text_functions: Mapping[str, TextFunction] | None = None,
        tools: Mapping[str, Tool] | None = None,
        reuse: System | None = None,
        start: bool = True,
        commits: Mapping[str, str] | None = None,
    ) -> System:
        """Load backbones and start links; arguments as `Plan.load`.

        Args:
            plan: what to load.
            device: for all agents, or by agent; None keeps reused backbones where they are, and
                loads others on the CPU.
            dtype: of the backbones, in place of what they declare; None keeps that of reused ones.
            seed: of the links' random start.
            executor: name of the default executor.
            text_functions: of text sources.
            tools: in place of registered ones, or beside them.
            reuse: a system whose loaded backbones are shared where declaration, device and dtype
                are the same; the others are loaded.
            start: apply the links' initialisation; False when weights follow.
            commits: of the hub, by backbone, in place of the revisions declared.

        Raises:
            WeightsError: a backbone cannot be loaded or does not fit.
            DataError: a chat template loses, changes or repeats the content of a turn.
            LatentMASError: a device is not there, a text source has no function, or one is given
                that nothing takes.
            UnknownNameError: no executor, type or tool has that name.
            TypeError: `plan` is no plan, or `reuse` no system.
        """
        check_plan(plan)
        known_executor(executor)
        dtype = check_dtype(dtype)
        seed = whole("seed", seed, least=None)
        tools = find_tools(plan, tools or {})
        check_text_functions(plan, text_functions or {})
        old = None if reuse is None else check_system("reuse", reuse).serving
        placed = place_agents(plan, device, old)
        sketch_links(plan)
        serving = load_backbones(plan, placed, dtype=dtype, reuse=old, commits=commits)
        for agent in plan.graph.agents:
            check_chat_template(serving[agent.name], agent, tool_schemas(agent, tools))
        links = build_links(plan, seed)
        system = cls(
            plan, links, serving, executor=executor, text_functions=text_functions, tools=tools
        )
        if start:
            by_key = {agent.backbone: serving[agent.name] for agent in plan.graph.agents}
            start_links(plan, links, by_key, seed)
        place_links(plan, system.links, system.serving)
        system.origin = Origin(seed=seed)
        return system

    def link(self, id: str) -> Link:
        """The link of that id; UnknownNameError when there is none."""
        link = self.links[link_key(self.plan.link(id).id)]
        assert isinstance(link, Link)
        return link

    def link_ids(self) -> list[str]:
        """Ids of all links, in plan order."""
        return [link.id for link in self.plan.links]

    def backbone_of(self, agent: str) -> LoadedBackbone:
        """The loaded backbone that serves an agent; UnknownNameError when there is none."""
        if agent not in self.serving:
            raise UnknownNameError("agent", agent, self.serving)
        return self.serving[agent]

    def forward(self, sample: Sample, **options: Any) -> RunResult:
        """Run one sample: `system("…").text`. Options as `run`."""
        return self.run([sample], **options)

    @spelled
    def run(
        self,
        samples: Sequence[Sample],
        *,
        rounds: int | None = None,
        latent_steps: int | None = None,
        max_new_tokens: TokenLimit = None,
        do_sample: bool = False,
        temperature: float = 1.0,
        top_p: float = 1.0,
        top_k: int | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        stop: str | Sequence[str] = (),
        seed: int | Sequence[int] = 0,
        num_return_sequences: int = 1,
        retry: Retry | str | None = None,
        record: str | Sequence[str] = (),
        position_mode: PositionMode = "mask",
        executor: str | Executor | None = None,
        batch_size: int = 32,
        refill: float | None = None,
        on_event: Watcher | Sequence[Watcher] = (),
        on_text: OnText | None = None,
        edit_message: EditMessage | None = None,
        on_error: OnError = "raise",
        manifest: str | Path | RunRecorder | None = None,
    ) -> RunResult:
        """Run the team over samples, without gradients.

        Args:
            samples: strings (the graph's only or first input) or mappings of input fields.
            rounds: R; None takes the plan's.
            latent_steps: K for every agent; None takes the plan's.
            max_new_tokens: maximum number of tokens for every agent that writes, in place of the
                agents' own limits; or limits by agent, which leave the other agents theirs. None
                takes the agents' own limits, else 256.
            do_sample: draw tokens in place of taking the likeliest.
            temperature: of drawing.
            top_p: nucleus of drawing.
            top_k: number of candidates when drawing.
            min_p: least probability of a candidate, relative to the likeliest.
            repetition_penalty: above 1, tokens written before become less likely.
            stop: strings that end the answer, and are not part of it.
            seed: of drawing; each sample has a stream of its own. A sequence gives a seed for each
                sample, which then draws the same wherever it stands.
            num_return_sequences: answers of each sample, drawn after one latent phase.
            retry: a second chance for answers that hold none: a `Retry`, or the name of a task
                (`"math"`, `"choice"`, `"code"`, `"search"`).
            record: what to keep, one or several: `"messages"`, `"states"`, `"report"` (what
                `RunResult.report` shows).
            position_mode: `"mask"`, or `"column"` as the published rollout counts positions.
            executor: an executor, or the name of one; None takes the system's.
            batch_size: most samples that are under way together.
            refill: the share of them whose answers must have ended before the next samples join
                in; 1 waits for all. None: a half on CUDA, where a step costs the same for fewer
                rows; all elsewhere.
            on_event: called with each event of the run.
            on_text: called with (number of a sample, text added to its answer) while it is
                written.
            edit_message: replaces messages on their way: a control, or an experiment.
            on_error: `"raise"`: a sample that cannot be run ends the run, and those whose fields or
                prompts are at fault are all named before anything runs. `"keep"`: the others run,
                and the result's `errors` tell what is wrong with these.
            manifest: file for what the run depends on and gave, which `latentmas.rerun` repeats.

        Returns:
            Texts, token ids, what was recorded, and the accounting. If the manifest cannot be
            written in the end, the result is returned all the same, with `manifest_error`.

        Raises:
            DataError: a sample lacks a field, or its prompt cannot be rendered or is too long.
            GraphError: rounds or latent steps out of range.
            LatentMASError: an option of the wrong type or out of range; LM512 when `manifest` could
                not repeat the run.
            UnknownNameError: no executor, retry or position mode has that name.
            ExecutionError: a step failed.
        """
        plan = self.plan
        if rounds is not None or latent_steps is not None:
            plan = plan.replace(rounds=rounds, latent_steps=latent_steps)
        plan = with_limits(plan, max_new_tokens)
        sampling = Sampling(
            do_sample=do_sample,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            stop=strings("stop", stop),
            seed=seeds(seed),
        )
        rows, unread = read_samples(plan, samples)
        options = read_options(
            len(rows),
            sampling,
            num_return_sequences=num_return_sequences,
            retry=retry,
            record=record,
            batch_size=batch_size,
            refill=choose_refill(self) if refill is None else refill,
            on_event=on_event,
            edit_message=edit_message,
            on_error=on_error,
        )
        if on_text is not None:
            tokenizer = self.backbone_of(plan.output).tokenizer
            listener = TextWatcher(tokenizer, on_text, sampling.stop)
            options = replace(options, watchers=(*options.watchers, listener))
        given: dict[str, Any] = asdict(sampling) | vars(options) | {"retry": retry}
        given |= {"rounds": rounds, "latent_steps": latent_steps, "max_new_tokens": max_new_tokens}
        given |= {"position_mode": position_mode, "executor": executor_name(self, executor)}
        chosen = make_executor(self, executor, check_position_mode(position_mode))
        errors = judge_samples(self, plan, rows, unread, options)
        recorder = self._recorder(manifest, rows, given)
        result = run_batches(self, plan, rows, options=options, executor=chosen, errors=errors)
        return self._recorded(recorder, result)

    def choose_executor(self) -> Choice:
        """The executor that `"auto"` stands for, and why."""
        return choose_executor(self)

    def stream(self, sample: Sample, **options: Any) -> Iterator[str]:
        """Run one sample and hand out its answer piece by piece; options as `run`.

        Closing the iterator ends the run.
        """
        return stream(self, sample, **options)

    def tap(self, edge: str, edit: TapEdit | None = None) -> Tap:
        """Read what passes along an edge in every run from now on, or replace it.

        Args:
            edge: `"planner->critic"`, or with the slot where several edges join the two.
            edit: takes the name of a message (`"round1.planner->critic"`) and message_BKD, and
                returns what arrives in its place: as many rows of batch, and the same width. For a
                text edge: the texts, one for each sample.

        Returns:
            A tap: a context manager that listens until it is closed or removed. Its `messages` or
            `texts` hold what passed in the newest run.

        Raises:
            UnknownNameError: the graph has no such edge.
            LatentMASError: the name fits several edges.
        """
        return self.taps.add(self.plan, edge, edit)

    def explain(
        self,
        samples: Sequence[Sample],
        hardware: str | Hardware = "h200",
        *,
        rounds: int | None = None,
        latent_steps: int | None = None,
        max_new_tokens: TokenLimit = None,
        executor: str | Executor | None = None,
    ) -> Explanation:
        """What a run over samples, as one batch, takes; as `Plan.explain`, with counted prompts.

        Args:
            samples: strings or mappings of input fields.
            hardware: a name, or a machine of your own.
            rounds: R; None takes the plan's.
            latent_steps: K for every agent; None takes the plan's.
            max_new_tokens: tokens that each agent writes; as in `run`.
            executor: executor whose memory to estimate; None takes the system's. `reference` and
                executors of your own count as `cached`.

        Raises:
            DataError: there is no sample, one lacks a field, or a prompt cannot be rendered.
            GraphError: rounds or latent steps out of range.
            UnknownNameError: no hardware has that name.
            LatentMASError: the hardware has no speed for a backbone's type.
        """
        from latentmas.cost import explain_samples

        plan = self.plan
        if rounds is not None or latent_steps is not None:
            plan = plan.replace(rounds=rounds, latent_steps=latent_steps)
        return explain_samples(
            self,
            plan,
            check_samples(plan, samples),
            hardware,
            max_new_tokens=max_new_tokens,
            executor=make_executor(self, executor, "mask"),
        )

    def outside_texts(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Value]:
        """What the text sources say for each sample of a batch."""
        return {
            source.name: outside_text(source, self.text_functions, samples)
            for source in self.plan.graph.text_sources
        }

    def __repr__(self) -> str:
        return describe(self)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> System:
        super()._apply(fn, recurse)
        for backbone in {id(b): b for b in self.serving.values()}.values():
            backbone.model._apply(fn)
            backbone.workspace.clear()
        return self
