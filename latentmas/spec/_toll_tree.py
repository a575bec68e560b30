"""Tolls in the tree of a template: each body pays when it runs, each operation for what it reads.

They are filters of `_sandbox`, under names that no template writes by accident; a template that
does write them pays more.
"""

from __future__ import annotations

from typing import Any

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

__all__ = ["JOIN", "LOOK", "RUN", "with_tolls"]

RUN, LOOK, JOIN = "pay for running", "pay for reading", "pay for joining"
_BODIES = (nodes.Template, nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)
"""Nodes whose bodies may run any number of times."""


def with_tolls(tree: nodes.Template) -> nodes.Template:
    """The tree, changed in place."""
    _Tolls().visit(tree)
    return tree


class _Tolls(NodeTransformer):
    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        """Put tolls below a node, and at the beginning of its body."""
        steps = 1 + sum(1 for _ in node.find_all(nodes.Node)) if isinstance(node, _BODIES) else 0
        super().generic_visit(node, *args, **kwargs)
        if isinstance(node, _BODIES):
            toll = _through(RUN, nodes.Const(None), nodes.Const(steps))
            node.body.insert(0, nodes.ExprStmt(toll, lineno=node.lineno))
            if isinstance(node, nodes.For) and node.test is not None:
                node.test = nodes.And(toll, node.test, lineno=node.lineno)
        return node

    def _read(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return _through(LOOK, node)

    def _tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _through(LOOK, node) if node.ctx == "load" else node

    def _item(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _through(LOOK, node) if isinstance(node.arg, nodes.Slice) else node

    def _compared(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _through(LOOK, node.expr)
        for operand in node.ops:
            operand.expr = _through(LOOK, operand.expr)
        return node

    def _joined(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _through(JOIN, nodes.Tuple(node.nodes, "load", lineno=node.lineno))

    visit_Compare = _compared
    visit_Concat = _joined
    visit_Dict = visit_List = _read
    visit_Getitem = _item
    visit_Tuple = _tuple


def _through(name: str, node: nodes.Expr, *args: nodes.Expr) -> nodes.Filter:
    """The node's value, sent through one of the filters."""
    toll = nodes.Filter(node, name, list(args), [], None, None)
    toll.set_lineno(node.lineno or 1)
    return toll
