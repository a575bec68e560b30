"""GraphSpec to Plan: share → wire → schedule → prune → verify, one pass per file. No weights."""

from latentmas.compiler.compile import compile_graph, reschedule
from latentmas.compiler.mentions import warn_of_single_braces

__all__ = ["compile_graph", "reschedule", "warn_of_single_braces"]
