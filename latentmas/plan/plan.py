"""`Plan`: frozen data between the compiler and the runtime."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import PrivateAttr, ValidationError

from latentmas.atomic import write_text_atomically
from latentmas.errors import PlanError, UnknownNameError, missing_attribute, spelled
from latentmas.plan._elsewhere import ELSEWHERE
from latentmas.plan.backbone import PlanBackbone
from latentmas.plan.drawn import Drawn
from latentmas.plan.links import LinkPlan
from latentmas.plan.steps import Decode, Rollout, Step
from latentmas.plan.verify import verify_links, verify_steps
from latentmas.safe_data import parse_json, read_limited
from latentmas.spec import (
    ALLOW,
    Frozen,
    GraphSpec,
    TextFunction,
    canonical_json,
    code_wanted,
    iter_invalid_values,
)
from latentmas.tools import Tool

if TYPE_CHECKING:
    from latentmas.cost import Explanation, Hardware
    from latentmas.plan.limits import TokenLimit
    from latentmas.plan.placement import DeviceMap, MaxMemory
    from latentmas.runtime import System

__all__ = ["Plan"]

_COUNTS: Any = {"backbones": {"__all__": {"info": {"costs": True, "adapter": {"n_parameters"}}}}}
LARGEST = 64 * 2**20
"""Maximum size of a plan file, in bytes."""
MOST_ITEMS = 2_000_000


class Plan(Drawn, Frozen):
    """A compiled team: the resolved graph, backbones, links and flat steps.

    Pure data: it saves, loads, compares, prints and draws without torch.
    """

    version: Literal[1] = 1
    """Version of the plan format."""
    graph: GraphSpec
    """The declaration, with every slot resolved."""
    backbones: dict[str, PlanBackbone]
    """Backbones by key, with their facts and agents."""
    links: tuple[LinkPlan, ...]
    """Links, one entry per set of weights."""
    steps: tuple[Step, ...]
    """Steps in the order of execution."""
    _text_functions: dict[str, TextFunction] = PrivateAttr(default_factory=dict)
    _tools: dict[str, Tool] = PrivateAttr(default_factory=dict)
    _models: dict[str, Any] = PrivateAttr(default_factory=dict)

    if not TYPE_CHECKING:  # type checkers still report misspelt attributes

        def __getattr__(self, name: str) -> Any:
            try:
                return super().__getattr__(name)
            except AttributeError:
                raise missing_attribute(self, name, ELSEWHERE, dir(type(self))) from None

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the plan's content.

        Counts for the cost model are excluded: they follow from the rest and may be added later.
        """
        return self.fingerprint

    @property
    def fingerprint(self) -> str:
        """As `digest`."""
        content = self.model_dump(mode="json", exclude=_COUNTS)
        return hashlib.sha256(canonical_json(content).encode()).hexdigest()

    @property
    def output(self) -> str:
        """The agent that decodes in the last round."""
        return self.graph.output[0]

    @property
    def n_parameters(self) -> int:
        """Number of weights of all links."""
        return sum(link.n_parameters for link in self.links)

    def link(self, id: str) -> LinkPlan:
        """The link with that id; UnknownNameError if there is none."""
        for link in self.links:
            if link.id == id:
                return link
        raise UnknownNameError("link", id, (link.id for link in self.links))

    def ends_of(self, link: LinkPlan) -> tuple[str, str]:
        """Sender and receiver of a link's first user; for an inner link, the same agent twice."""
        user = link.users[0]
        if link.role == "inner":
            return user, user
        edge = next(edge for edge in self.graph.edges if edge.id == user)
        return edge.source, edge.target

    def turns(self) -> list[Rollout | Decode]:
        """The steps that run a model."""
        return [step for step in self.steps if isinstance(step, Rollout | Decode)]

    def replace(self, *, rounds: int | None = None, latent_steps: int | None = None) -> Plan:
        """The plan for a different depth: same links and backbones, different steps.

        Args:
            rounds: Number of rounds R.
            latent_steps: Number of latent steps K of every agent.

        Raises:
            GraphError: A number is out of range (LM113).
        """
        from latentmas.compiler import reschedule

        plan = reschedule(self, rounds=rounds, latent_steps=latent_steps)
        return plan.with_functions(
            text_functions=self._text_functions, tools=self._tools, models=self._models
        )

    def with_functions(
        self,
        *,
        text_functions: Mapping[str, TextFunction] | None = None,
        tools: Mapping[str, Tool] | None = None,
        models: Mapping[str, Any] | None = None,
    ) -> Plan:
        """The same plan with text-source functions, tools and models for `load`."""
        plan = self.model_copy()
        plan._text_functions = dict(text_functions or {})
        plan._tools = dict(tools or {})
        plan._models = dict(models or {})
        return plan

    @spelled
    def load(
        self,
        device: str | Mapping[str, str] | None = None,
        *,
        dtype: str | None = None,
        seed: int = 0,
        executor: str = "auto",
        text_functions: Mapping[str, TextFunction] | None = None,
        tools: Mapping[str, Tool] | None = None,
        models: Mapping[str, Any] | None = None,
        reuse: System | None = None,
        device_map: DeviceMap | None = None,
        max_memory: MaxMemory | None = None,
        tensor_parallel: int = 1,
    ) -> System:
        """Load the backbones, create the links, and return a runnable team.

        Args:
            device: Device for all agents, or by agent (`{"planner": "cuda:0"}`). With None, and
                for omitted agents, reused backbones stay where they are; others use the CPU.
            dtype: Data type that overrides the backbones' declared one (`"float32"`). None keeps
                that of reused ones.
            seed: Random seed of the links' initialisation.
            executor: Name of the default executor.
            text_functions: Functions of text sources, by name.
            tools: Tools by name, in addition to registered ones or replacing them.
            models: For each backbone `given:NAME`, NAME → (model, tokenizer), in addition to those
                given to `compile` or replacing them.
            reuse: System whose loaded backbones are shared if declaration, device and dtype are
                the same; the others are loaded.
            device_map: Puts the layers of a backbone on several devices of this process: `"auto"`,
                `"balanced"`, `"balanced_low_0"` or `"sequential"`, or the device of each module by
                name; for all agents, or by agent. Needs no `device` for these agents.
            max_memory: Memory that `device_map` may use of each device (`{0: "20GiB"}`).
            tensor_parallel: Number of processes, started by `torchrun`, that hold each backbone
                together.

        Raises:
            WeightsError: A backbone cannot be loaded or does not match the plan.
            LatentMASError: A device is not available, a text source has no function, or a
                function is passed that is not used.
            UnknownNameError: An agent's tool is neither registered nor passed.
        """
        if not isinstance(self, Plan):
            raise TypeError(
                f"Plan.load loads the backbones of a plan, and was given {self!r:.60}; "
                "Plan.open(path) reads a plan that plan.save(path) wrote"
            )
        from latentmas.runtime import System

        takers = {source.name for source in self.graph.text_sources if source.text is None}
        used = {tool for agent in self.graph.agents for tool in agent.tools}
        functions = {name: f for name, f in self._text_functions.items() if name in takers}
        own_tools = {name: tool for name, tool in self._tools.items() if name in used}
        return System.load(
            self,
            device=device,
            dtype=dtype,
            seed=seed,
            executor=executor,
            text_functions={**functions, **(text_functions or {})},
            tools={**own_tools, **(tools or {})},
            models={**self._models, **(models or {})},
            reuse=reuse,
            device_map=device_map,
            max_memory=max_memory,
            tensor_parallel=tensor_parallel,
        )

    def to_json(self, *, indent: int | None = 2) -> str:
        """JSON text, from which `from_json` restores an equal plan."""
        return self.model_dump_json(indent=indent)

    @classmethod
    def from_json(cls, text: str | bytes, *, trust_remote_code: bool = False) -> Plan:
        """Restore a plan from the output of `to_json` and check all invariants.

        Args:
            text: JSON text.
            trust_remote_code: Accept a plan that runs code from a model's repository.

        Raises:
            PlanError: The text is not a plan, a step uses an undefined value, or the plan asks to
                run such code (LM504).
        """
        try:
            data = parse_json(text, most_items=MOST_ITEMS)
            odd = next(iter_invalid_values(data, "plan"), None)
            if odd is not None:
                raise PlanError(": ".join(odd))
            plan = cls.model_validate(data)
        except PlanError:
            raise
        except (ValidationError, ValueError, RecursionError) as error:
            raise PlanError(f"not a plan: {error}") from error
        verify_steps(plan.steps, plan.links, plan.graph)
        verify_links(plan.links, plan.backbones, plan.graph)
        specs = {key: backbone.spec for key, backbone in plan.backbones.items()}
        for key, what in code_wanted(plan.graph.backbones | specs).items():
            if not trust_remote_code:
                raise PlanError(f"LM504 backbone {key}: the plan asks to run {what}; {ALLOW}")
        return plan

    def save(self, path: str | Path) -> Path:
        """Write the plan as a JSON file, which `Plan.open` reads.

        Raises:
            DataError: The file cannot be written.
        """
        return write_text_atomically(Path(path), self.to_json() + "\n")

    @classmethod
    def open(cls, path: str | Path, *, trust_remote_code: bool = False) -> Plan:
        """Read a plan file that `save` wrote; `load` on the plan then loads the models.

        Same arguments and errors as `from_json`, and a PlanError if the file cannot be read.
        """
        try:
            text = read_limited(Path(path), LARGEST)
        except (OSError, ValueError) as error:
            raise PlanError(f"cannot read plan {str(path)!r}: {error}") from error
        return cls.from_json(text, trust_remote_code=trust_remote_code)

    def diff(self, other: Plan) -> list[str]:
        """Differences from `other`, one line each; empty if the plans are equal."""
        from latentmas.plan._diff import diff_plans

        return diff_plans(self, other)

    def summary(self) -> str:
        """The plan as text: agents, backbones, links with exact sizes, schedule."""
        from latentmas.viz import summarise

        return summarise(self)

    def explain(
        self,
        hardware: str | Hardware = "h200",
        *,
        batch: int = 1,
        input_tokens: int | Mapping[str, int] = 100,
        max_new_tokens: TokenLimit = None,
        dtype: str | None = None,
        executor: str = "cached",
        characters_per_token: float = 4.0,
    ) -> Explanation:
        """Estimate the cost of a run with a roofline; nothing is loaded.

        Seconds are a lower bound: all operations at peak speed, all bytes at full bandwidth.
        Prompts are estimated from their templates; `System.explain` counts them.

        Args:
            hardware: A name (`"h200"`, `"h100"`, `"a100"`, `"l4"`, `"rtx4090"`, `"cpu"`), or your
                own `Hardware`. One machine holds all backbones.
            batch: Number of samples that run together.
            input_tokens: Number of tokens of each sample field: one number, or by field.
            max_new_tokens: Number of tokens each agent generates: one number, or by agent. None:
                the agents' own limits, or else 256.
            dtype: Data type of the weights that overrides the declared one.
            executor: Executor whose memory to estimate: `"cached"`; `"cuda_graph"` and `"static"`,
                whose buffers have fixed sizes; `"offload"`, which holds one backbone on the device
                at a time; or `"openvino"`, whose copy of the weights is not counted.
            characters_per_token: Number of characters per token of templates and constant texts.

        Returns:
            Costs by step, totals, and prompts whose order prevents reuse; print it.

        Raises:
            UnknownNameError: the hardware or executor is unknown.
            LatentMASError: A number is out of range or a data type is unknown.
            DataError: `input_tokens` lacks a field.
        """
        from latentmas.cost import explain_plan

        return explain_plan(
            self,
            hardware,
            batch=batch,
            input_tokens=input_tokens,
            max_new_tokens=max_new_tokens,
            dtype=dtype,
            executor=executor,
            characters_per_token=characters_per_token,
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __str__(self) -> str:
        return self.summary()
