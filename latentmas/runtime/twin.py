"""Another graph on the backbones that a system has loaded."""

from __future__ import annotations

from typing import TYPE_CHECKING

from latentmas.spec import Graph

if TYPE_CHECKING:
    from latentmas.runtime.system import System

__all__ = ["load_beside"]


def load_beside(system: System, graph: Graph) -> System:
    """Load a graph of the same backbones beside a system, without a second copy of any weights.

    Args:
        system: whose backbones, tools, text functions and default executor are shared.
        graph: a variant of the system's graph, such as its text twin.

    Raises:
        GraphError: with every problem of the graph.
    """
    facts = {key: backbone.info for key, backbone in system.plan.backbones.items()}
    plan = graph.compile(facts=facts).with_functions(
        text_functions=system.text_functions, tools=system.tools
    )
    return plan.load(executor=system.executor, reuse=system)
