"""Inserts charges into a template's syntax tree: for each run of a body and each value read.

The charges are filters of `environment`, under names that a template cannot use by accident; a
template that does use them is merely charged more.
"""

from __future__ import annotations

from typing import Any

from jinja2 import nodes
from jinja2.visitor import NodeTransformer

__all__ = ["CHARGE_JOIN", "CHARGE_READ", "CHARGE_RUN", "add_metering"]

CHARGE_RUN, CHARGE_READ, CHARGE_JOIN = (
    "charge for running",
    "charge for reading",
    "charge for joining",
)
_BODIES = (nodes.Template, nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)
"""Nodes whose bodies may run any number of times."""


def add_metering(tree: nodes.Template) -> nodes.Template:
    """Insert charges into the tree, in place."""
    _Metering().visit(tree)
    return tree


class _Metering(NodeTransformer):
    def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> nodes.Node:
        """Insert charges below a node and at the start of its body."""
        steps = 1 + sum(1 for _ in node.find_all(nodes.Node)) if isinstance(node, _BODIES) else 0
        super().generic_visit(node, *args, **kwargs)
        if isinstance(node, _BODIES):
            charge = _through(CHARGE_RUN, nodes.Const(None), nodes.Const(steps))
            node.body.insert(0, nodes.ExprStmt(charge, lineno=node.lineno))
            if isinstance(node, nodes.For) and node.test is not None:
                node.test = nodes.And(charge, node.test, lineno=node.lineno)
        return node

    def _read(self, node: nodes.Expr) -> nodes.Node:
        self.generic_visit(node)
        return _through(CHARGE_READ, node)

    def _tuple(self, node: nodes.Tuple) -> nodes.Node:
        self.generic_visit(node)
        return _through(CHARGE_READ, node) if node.ctx == "load" else node

    def _item(self, node: nodes.Getitem) -> nodes.Node:
        self.generic_visit(node)
        return _through(CHARGE_READ, node) if isinstance(node.arg, nodes.Slice) else node

    def _compared(self, node: nodes.Compare) -> nodes.Node:
        self.generic_visit(node)
        node.expr = _through(CHARGE_READ, node.expr)
        for operand in node.ops:
            operand.expr = _through(CHARGE_READ, operand.expr)
        return node

    def _joined(self, node: nodes.Concat) -> nodes.Node:
        self.generic_visit(node)
        return _through(CHARGE_JOIN, nodes.Tuple(node.nodes, "load", lineno=node.lineno))

    visit_Compare = _compared
    visit_Concat = _joined
    visit_Dict = visit_List = _read
    visit_Getitem = _item
    visit_Tuple = _tuple


def _through(name: str, node: nodes.Expr, *args: nodes.Expr) -> nodes.Filter:
    """Pass the node's value through one of the filters."""
    charge = nodes.Filter(node, name, list(args), [], None, None)
    charge.set_lineno(node.lineno or 1)
    return charge
