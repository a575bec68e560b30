"""The Jinja2 environment of prompts and chat templates: a sandbox with a budget.

Jinja2's own sandbox keeps a template away from Python's internals but does not limit time and
memory. Here each loop, macro and block is charged every time its body runs, and each operator,
filter, test and call is charged for what it reads and creates, before it creates it. Nothing is
evaluated while a template is compiled.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import Any

from jinja2 import TemplateSyntaxError, nodes, pass_context
from jinja2.sandbox import ImmutableSandboxedEnvironment, SandboxedFormatter

from latentmas.prompts.budget import OverBudgetError, budget
from latentmas.prompts.charges import (
    check_filter,
    check_method,
    check_operator,
    check_width,
    drained,
)
from latentmas.prompts.metering import CHARGE_JOIN, CHARGE_READ, CHARGE_RUN, add_metering

__all__ = ["MeteredEnvironment", "paid", "shown"]

LONGEST_TEMPLATE = 2**20
"""Maximum number of characters of a template."""
MOST_TOKENS = 10_000
"""Maximum number of tokens of a template; a run of plain text is one token."""
_DIGITS = re.compile(r"[0-9a-fA-F_]{10000}")
"""Constructs that need much memory in Jinja2's lexer."""
_OUTSIDE = (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends)
_HIDDEN = ("_loop_vars", "_block_vars", "caller")


class MeteredEnvironment(ImmutableSandboxedEnvironment):
    """Compiles templates. `parse` and `from_string` raise only TemplateSyntaxError."""

    intercepted_binops = frozenset({"+", "-", "*", "/", "//", "**", "%"})

    def __init__(self, **options: Any) -> None:
        """Accept Jinja2's options; `finalize` must charge for its argument, as `shown` does."""
        super().__init__(autoescape=False, optimized=False, **{"finalize": shown} | options)
        self.globals.pop("lipsum", None)
        self.globals["range"] = _range
        filters: dict[str, Any] = self.filters
        self.filters = {name: paid(name, do) for name, do in filters.items()}
        tests: dict[str, Any] = self.tests
        self.tests = {name: paid(name, do) for name, do in tests.items()}
        self.filters |= {
            CHARGE_RUN: _charge_run,
            CHARGE_READ: _charge_read,
            CHARGE_JOIN: _charge_join,
        }

    @staticmethod
    def concat(parts: Iterable[str]) -> str:
        """Join the output of a template, a macro or a block."""
        return "".join(MeteredEnvironment.pay_for(parts))

    @staticmethod
    def pay_for(parts: Iterable[str]) -> list[str]:
        """Yield the parts of a text, charging for each."""
        own, found = budget(), list[str]()
        size = 0
        for part in parts:
            size += len(part)
            if size > own.longest:
                own.make(size)
            found.append(part)
        own.make(size)
        return found

    # --- compiling -------------------------------------------------------------------------------

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        try:
            self._check_length(source)
            tree = super()._parse(source, name, filename)
            for node in tree.find_all(_OUTSIDE):
                raise TemplateSyntaxError("a prompt cannot load other templates", node.lineno)
        except (RecursionError, MemoryError) as error:
            raise TemplateSyntaxError("the template is nested too deeply", 1) from error
        except (ValueError, OverflowError) as error:
            raise TemplateSyntaxError(f"a number is too long: {error}", 1) from error
        return tree

    def _check_length(self, source: str) -> None:
        if len(source) > LONGEST_TEMPLATE:
            raise TemplateSyntaxError(
                f"the template has {len(source):,} characters, more than {LONGEST_TEMPLATE:,}", 1
            )
        if _DIGITS.search(source):
            raise TemplateSyntaxError("the template contains a number that is too long", 1)
        for count, (line, _, _) in enumerate(self.lexer.tokeniter(source, None)):
            if count > MOST_TOKENS:
                raise TemplateSyntaxError(f"the template has over {MOST_TOKENS:,} tokens", line)

    def _generate(self, source: nodes.Template, *args: Any, **options: Any) -> str:
        try:
            return super()._generate(add_metering(source), *args, **options)
        except RecursionError as error:
            raise TemplateSyntaxError("the template is nested too deeply", 1) from error
        except ValueError as error:
            raise TemplateSyntaxError(f"a number is too long: {error}", 1) from error

    def _compile(self, source: str, filename: str) -> Any:
        try:
            return super()._compile(source, filename)
        except (SyntaxError, RecursionError, MemoryError, ValueError, OverflowError) as error:
            raise TemplateSyntaxError(f"the template is nested too deeply: {error}", 1) from error

    # --- rendering -------------------------------------------------------------------------------

    def call(
        __self,  # noqa: N805
        __context: Any,
        __obj: Any,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        """Call a method, a macro or a function."""
        own = budget()
        own.spend(4)
        given = [value for name, value in kwargs.items() if name not in _HIDDEN]
        own.look([*args, *given])
        owner = getattr(__obj, "__self__", None)
        if owner is not None:
            own.look(owner)
            check_method(owner, str(getattr(__obj, "__name__", "")), args, kwargs)
        return own.charge(super().call(__context, __obj, *args, **kwargs))

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """Apply an operator between two values."""
        own = budget()
        own.look([left, right])
        check_operator(operator, left, right)
        return own.charge(super().call_binop(context, operator, left, right))

    def getitem(self, obj: Any, argument: Any) -> Any:
        """Get an item; a tuple used as a key is hashed as a whole, so it is charged as a whole."""
        if isinstance(argument, tuple):
            budget().look(argument)
        return super().getitem(obj, argument)

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """`str.format` and `str.format_map` with a formatter that charges."""
        plain = super().wrap_str_format(value)
        if plain is None:
            return None
        text, mapped = value.__self__, value.__name__ == "format_map"

        @functools.wraps(value)
        def wrapper(*args: Any, **kwargs: Any) -> str:
            if mapped and (kwargs or len(args) != 1):
                raise TypeError("format_map() takes one mapping and nothing else")
            fields = args[0] if mapped else kwargs
            written: str = type(text)(
                _Formatter(self).vformat(text, () if mapped else args, fields)
            )
            return written

        return wrapper


class _Formatter(SandboxedFormatter):
    """Charges for each field."""

    def convert_field(self, value: Any, conversion: Any) -> Any:
        budget().look(value)
        return budget().charge(super().convert_field(value, conversion))

    def format_field(self, value: Any, format_spec: str) -> str:
        budget().look(value)
        check_width(format_spec)
        text: str = budget().charge(super().format_field(value, format_spec))
        return text


@pass_context
def shown(_: Any, value: Any) -> Any:
    """Charge for an inserted value; requiring the context prevents constant folding."""
    budget().look(value)
    return value


def paid(name: str, do: Callable[..., Any]) -> Callable[..., Any]:
    """A filter or a test that charges."""
    skipped = 1 if hasattr(do, "jinja_pass_arg") else 0

    @functools.wraps(do)
    def metered(*args: Any, **kwargs: Any) -> Any:
        own = budget()
        own.spend(2)
        args = (*args[:skipped], *map(drained, args[skipped:]))
        own.look([*args[skipped:], *kwargs.values()])
        check_filter(name, args[skipped:], kwargs)
        return own.charge(drained(do(*args, **kwargs)))

    return metered


def _range(*args: int) -> range:
    found = range(*args)
    if len(found) > budget().steps:
        raise OverBudgetError(f"the template counts to {args[-1]}; make it simpler")
    return found


def _charge_run(value: Any, steps: int) -> bool:
    budget().spend(steps)
    return True


def _charge_read(value: Any) -> Any:
    budget().look(value)
    return value


def _charge_join(values: tuple[Any, ...]) -> str:
    budget().look(values)
    texts = [str(value) for value in values]
    if sum(map(len, texts)) > budget().longest:
        raise OverBudgetError("the template joins strings into one that is too long")
    text: str = budget().charge("".join(texts))
    return text
