"""`System`: a plan with weights. Links and agents' adapters are parameters; backbones are apart.

Shapes: `B` batch, `K` latent steps, `D` width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from latentmas.arguments import function
from latentmas.backbones import LoadedBackbone, Mesh, TensorSplit
from latentmas.engine import (
    AUTO,
    Choice,
    Executor,
    choose_executor,
    choose_refill_threshold,
    known_executor,
    make_executor,
)
from latentmas.errors import LatentMASError, UnknownNameError
from latentmas.links import Link
from latentmas.plan import (
    DeviceMap,
    MaxMemory,
    Plan,
    PositionMode,
    RunOptions,
    with_limits,
)
from latentmas.runtime.functions import check_text_functions, outside_text, resolve_tools
from latentmas.runtime.history import Origin, Score, TrainingRecord
from latentmas.runtime.interpreter import Content, EditMessage
from latentmas.runtime.loading.init_weights import attach_links
from latentmas.runtime.loading.placement import (
    link_key,
    move_backbones,
)
from latentmas.runtime.loading.splitting import check_movable, check_same_run
from latentmas.runtime.loading.team import load_team
from latentmas.runtime.methods.adapters import Adapters
from latentmas.runtime.methods.describing import describe
from latentmas.runtime.methods.estimating import Estimating
from latentmas.runtime.methods.sharing import Sharing
from latentmas.runtime.methods.warming import Warming
from latentmas.runtime.observing.events import Watcher
from latentmas.runtime.observing.streaming import OnText, TextWatcher, stream
from latentmas.runtime.observing.taps import Tap, TapEdit, Taps
from latentmas.runtime.options import (
    RunRequest,
    check_seeds,
    find_retry,
    merge_options,
    read_watchers,
    takes_options,
)
from latentmas.runtime.result import RunResult
from latentmas.runtime.run import judge_samples, run_batches
from latentmas.runtime.samples import Sample, read_samples
from latentmas.spec import TextFunction, class_only
from latentmas.tools import Tool

if TYPE_CHECKING:
    from latentmas.io import RunRecorder

__all__ = ["System"]


class System(Adapters, Estimating, Sharing, Warming, nn.Module):
    """A runnable team: a plan, its frozen backbones and its links.

    `parameters()` and `state_dict()` hold the links, and the adapters that `add_adapter` gave to
    agents, in fp32. `to`, `cuda`, `double` and the like move backbones and links together.
    """

    def __init__(
        self,
        plan: Plan,
        links: Mapping[str, Link],
        agent_backbones: Mapping[str, LoadedBackbone],
        *,
        executor: str = AUTO,
        text_functions: Mapping[str, TextFunction] | None = None,
        tools: Mapping[str, Tool] | None = None,
    ) -> None:
        """Assemble a system from its parts; `System.load` and `Plan.load` make them.

        Args:
            plan: Plan to run.
            links: Links by id.
            agent_backbones: Loaded backbone of each agent.
            executor: Name of the default executor; `"auto"` is `cuda_graph` where it applies, else
                `cached`.
            text_functions: Functions of the plan's text sources without a constant text.
            tools: Tools by name; registered tools need not be given.
        """
        super().__init__()
        self.plan = plan
        """Plan that runs."""
        self.links = nn.ModuleDict({link_key(id): link for id, link in links.items()})
        """Links by id."""
        self.adapters = nn.ModuleDict()
        """Adapters of single agents, which `add_adapter` makes."""
        self.agent_backbones = dict(agent_backbones)
        """Loaded backbone of each agent."""
        attach_links(plan, links, self.agent_backbones)
        self.executor = known_executor(executor)
        """Name of the default executor."""
        self.text_functions = dict(text_functions or {})
        """Functions of text sources, by name."""
        check_text_functions(plan, self.text_functions)
        self.tools = resolve_tools(plan, tools or {})
        """Tools by name."""
        self.taps = Taps()
        """Taps on the edges."""
        self.origin = Origin()
        """Where the system was loaded from."""
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
        models: Mapping[str, object] | None = None,
        reuse: System | None = None,
        device_map: DeviceMap | None = None,
        max_memory: MaxMemory | None = None,
        tensor_parallel: int = 1,
        start: bool = True,
        commits: Mapping[str, str] | None = None,
    ) -> System:
        """Load backbones and start links; arguments as `Plan.load`.

        Args:
            plan: Plan to load.
            device: Device of all agents, or devices by agent; None leaves reused backbones where
                they are and loads others on the CPU.
            dtype: Data type that replaces those declared by the backbones; None keeps that of
                reused ones.
            seed: Random seed of the links' initialisation.
            executor: Name of the default executor.
            text_functions: Functions of text sources, by name.
            tools: Tools by name, in addition to registered ones or instead of them.
            models: NAME → (model, tokenizer), for each backbone `given:NAME`; it stays in place.
            reuse: System whose loaded backbones are shared where declaration, device and data type
                are equal; other backbones are loaded.
            device_map: Puts the layers of a backbone on several devices of this process: `"auto"`,
                `"balanced"`, `"balanced_low_0"` or `"sequential"`, or the device of each module by
                name; for all agents, or by agent. Needs no `device` for these agents.
            max_memory: Memory that `device_map` may use of each device (`{0: "20GiB"}`).
            tensor_parallel: Number of processes, started by `torchrun`, that hold each backbone
                together.
            start: Whether to initialise the links; False if weights will be loaded.
            commits: Commits on the Hub, by backbone, which replace the declared revisions.

        Raises:
            WeightsError: A backbone cannot be loaded or does not fit.
            DataError: A chat template loses, changes or repeats the content of a turn.
            LatentMASError: A device is unavailable, a text source has no function, or a given
                function belongs to no text source.
            UnknownNameError: An executor, data type or tool is unknown.
            TypeError: `plan` is not a plan, or `reuse` is not a system.
        """
        return load_team(
            cls,
            plan,
            device=device,
            dtype=dtype,
            seed=seed,
            executor=executor,
            text_functions=text_functions,
            tools=tools,
            models=models,
            reuse=reuse,
            device_map=device_map,
            max_memory=max_memory,
            tensor_parallel=tensor_parallel,
            start=start,
            commits=commits,
        )

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
        if agent not in self.agent_backbones:
            raise UnknownNameError("agent", agent, self.agent_backbones)
        return self.agent_backbones[agent]

    def forward(self, sample: Sample, **options: Any) -> RunResult:
        """Run one sample: `system("…").text`. Options as `run`."""
        return self.run([sample], **options)

    @takes_options
    def run(
        self,
        samples: Sequence[Sample],
        *,
        options: RunOptions | None = None,
        on_event: Watcher | Sequence[Watcher] = (),
        on_text: OnText | None = None,
        edit_message: EditMessage | None = None,
        manifest: str | Path | RunRecorder | None = None,
        **given: Any,
    ) -> RunResult:
        """Run the team over samples, without gradients.

        Args:
            samples: strings (the graph's only or first input) or mappings of input fields.
            options: options as a whole; those given as keywords replace them.
            on_event: called with each event of the run.
            on_text: called with (number of a sample, text added to its answer) while it is
                written.
            edit_message: replaces messages on their way: a control, or an experiment.
            manifest: file for what the run depends on and gave, which `latentmas.rerun` repeats.
            **given: besides names, `retry` takes a `Retry` and `executor` an `Executor`;
                options, each a field of `RunOptions`.

        Returns:
            Texts, token ids, what was recorded, and the accounting. If the manifest cannot be
            written in the end, the result is returned all the same, with `manifest_error`.

        Raises:
            DataError: a sample lacks a field, or its prompt cannot be rendered or is too long.
            GraphError: rounds or latent steps out of range.
            LatentMASError: options of the wrong type or out of range, all named at once; LM512
                when `manifest` could not repeat the run.
            UnknownNameError: no executor, retry or position mode has that name.
            TypeError: the option is unknown.
            ExecutionError: a step failed.
        """
        asked, objects = merge_options("System.run", options, given)
        edited = edit_message is not None or len(self.taps.edits) > 0
        check_same_run(self, samples, asked, objects, edited=edited)
        plan = self.plan
        if asked.rounds is not None or asked.latent_steps is not None:
            plan = plan.replace(rounds=asked.rounds, latent_steps=asked.latent_steps)
        plan = with_limits(plan, asked.max_new_tokens)
        rows, unread = read_samples(plan, samples)
        check_seeds(asked, len(rows))
        watchers = read_watchers(on_event)
        if on_text is not None:
            tokenizer = self.backbone_of(plan.output).tokenizer
            watchers = (*watchers, TextWatcher(tokenizer, on_text, asked.stop))
        request = self._request(asked, objects, watchers, function("edit_message", edit_message))
        errors = judge_samples(self, plan, rows, unread, request)
        writes = self.mesh is None or self.mesh.writes
        recorder = self._recorder(manifest if writes else None, rows, request)
        result = run_batches(self, plan, rows, request=request, errors=errors)
        return self._recorded(recorder, result)

    def check(self, samples: Sequence[Sample], **given: Any) -> dict[int, LatentMASError]:
        """Number of each sample that `run` would refuse → the reason. Nothing is run.

        Args:
            samples: as in `run`.
            **given: options of `run`, such as `rounds` and `latent_steps`.
        """
        asked, objects = merge_options("System.check", None, given)
        plan = with_limits(
            self.plan.replace(rounds=asked.rounds, latent_steps=asked.latent_steps),
            asked.max_new_tokens,
        )
        rows, unread = read_samples(plan, samples)
        request = self._request(asked.replace(on_error="keep"), objects, (), None)
        return judge_samples(self, plan, rows, unread, request)

    def _request(
        self,
        options: RunOptions,
        objects: Mapping[str, Any],
        watchers: tuple[Watcher, ...],
        edit_message: EditMessage | None,
    ) -> RunRequest:
        """What was asked for, with what was left open chosen."""
        wanted = objects.get("executor", options.executor)
        executor = self._executor(wanted, options.position_mode)
        own = isinstance(wanted, Executor)
        changes: dict[str, Any] = {"executor": None if own else executor.name}
        if options.refill_threshold is None:
            changes["refill_threshold"] = choose_refill_threshold(
                self.backbone_of(self.plan.output)
            )
        return RunRequest(
            options=options.replace(**changes),
            executor=executor,
            retry=find_retry(options, objects),
            watchers=watchers,
            edit_message=edit_message,
            objects={**objects} | ({"edit_message": edit_message} if edit_message else {}),
        )

    def choose_executor(self) -> Choice:
        """The executor that `"auto"` stands for, and why."""
        return choose_executor(self.agent_backbones)

    def _executor(
        self, wanted: str | Executor | None, position_mode: PositionMode = "mask"
    ) -> Executor:
        """The executor of a run: the caller's own, one of that name, or the system's."""
        if isinstance(wanted, Executor):
            return wanted
        return make_executor(wanted or self.executor, self.agent_backbones, position_mode)

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

    def outside_texts(self, samples: Sequence[Mapping[str, Any]]) -> dict[str, Content]:
        """What the text sources say for each sample of a batch."""
        return {
            source.name: outside_text(source, self.text_functions, samples)
            for source in self.plan.graph.text_sources
        }

    def __repr__(self) -> str:
        return describe(self)

    @property
    def mesh(self) -> Mesh | None:
        """The processes that hold the backbones together; None without `tensor_parallel`."""
        splits = (backbone.split for backbone in self.agent_backbones.values())
        return next((one.mesh for one in splits if isinstance(one, TensorSplit)), None)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> System:
        check_movable(self.agent_backbones)
        move_backbones(self.agent_backbones, fn)
        super()._apply(fn, recurse)
        return self
