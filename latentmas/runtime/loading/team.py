"""Load a plan: backbones, links and functions, into a system."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from latentmas.arguments import whole
from latentmas.engine import check_chat_template, known_executor
from latentmas.generation import tool_schemas
from latentmas.plan import DeviceMap, MaxMemory, Plan
from latentmas.runtime.functions import check_text_functions, resolve_tools
from latentmas.runtime.history import Origin
from latentmas.runtime.loading.init_weights import build_links, init_link_weights, meta_links
from latentmas.runtime.loading.placement import (
    check_dtype,
    check_plan,
    load_backbones,
    place_agents,
    place_links,
    reusable_backbones,
)
from latentmas.runtime.loading.splitting import choose_splits
from latentmas.spec import TextFunction
from latentmas.tools import Tool

if TYPE_CHECKING:
    from latentmas.runtime.system import System

__all__ = ["load_team"]


def load_team(
    cls: type[System],
    plan: Plan,
    *,
    device: str | Mapping[str, str] | None,
    dtype: str | None,
    seed: int,
    executor: str,
    text_functions: Mapping[str, TextFunction] | None,
    tools: Mapping[str, Tool] | None,
    models: Mapping[str, object] | None,
    reuse: System | None,
    device_map: DeviceMap | None,
    max_memory: MaxMemory | None,
    tensor_parallel: int,
    start: bool,
    commits: Mapping[str, str] | None,
) -> System:
    """Load backbones and start links; arguments and errors as `System.load`."""
    check_plan(plan)
    known_executor(executor)
    dtype = check_dtype(dtype)
    seed = whole("seed", seed, least=None)
    tools = resolve_tools(plan, tools or {})
    check_text_functions(plan, text_functions or {})
    old = reusable_backbones(plan, reuse, models or {})
    splits = choose_splits(
        plan,
        device=device,
        device_map=device_map,
        max_memory=max_memory,
        tensor_parallel=tensor_parallel,
        executor=executor,
    )
    placed = place_agents(plan, device, old)
    meta_links(plan)
    agent_backbones = load_backbones(
        plan, placed, dtype=dtype, reuse=old, commits=commits, splits=splits
    )
    for agent in plan.graph.agents:
        check_chat_template(agent_backbones[agent.name], agent, tool_schemas(agent, tools))
    links = build_links(plan, seed)
    system = cls(
        plan,
        links,
        agent_backbones,
        executor=executor,
        text_functions=text_functions,
        tools=tools,
    )
    if start:
        by_key = {agent.backbone: agent_backbones[agent.name] for agent in plan.graph.agents}
        init_link_weights(plan, links, by_key, seed)
    place_links(plan, system.links, system.agent_backbones)
    system.origin = Origin(seed=seed)
    return system
