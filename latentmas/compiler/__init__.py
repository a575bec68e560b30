"""GraphSpec to Plan: share → wire → schedule → prune → verify, one pass a file. No weights."""

from latentmas.compiler.compile import compile_graph, reschedule

__all__ = ["compile_graph", "reschedule"]
