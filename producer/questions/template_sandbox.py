"""Where templates of prompts run: Jinja's sandbox, with bounds to how long they compute.

What is counted are steps, not seconds, so that a template and a row give the same prompt, or the same error, on every machine at any load. A step is
one round of a loop or one item of what a filter is given; a call or a filter costs some more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from dataclasses import dataclass
from typing import Any, cast

import orjson
from jinja2 import StrictUndefined, Template, nodes, pass_context
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import _PassArg

MAX_STEPS = 1_000_000
"""A tenth to half a second."""
CALL_STEPS = 50
FILTER_STEPS = 10
CHARS_PER_STEP = 64
_BUDGET = "steps left"
_COUNTED = "count the steps"
"""With spaces, so that no template can name them."""
_MAX_POWER = 64
_MAX_BITS = 4096
_MAX_CHARS = 4 * 1024 * 1024
_PADDING = ("center", "format", "indent")
_MAX_COUNT = 10_000


@dataclass(slots=True)
class Budget:
    """The steps that one prompt may still take."""

    left: int = MAX_STEPS

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            msg = f"it computes for too long: more than {MAX_STEPS} steps of loops and calls"
            raise SecurityError(msg)


class Sandbox(ImmutableSandboxedEnvironment):
    """Compiles templates whose every loop counts its steps."""

    # Three characters of a template could otherwise fill the memory.
    intercepted_binops = frozenset({"*", "**", "%", "+"})

    def __init__(self) -> None:
        super().__init__(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
        # Jinja's own escapes <, > and & for HTML.
        self.filters["tojson"] = lambda value: orjson.dumps(value).decode()
        # Some pad to any width; one would give another prompt each time that the questions are read.
        for name in (*_PADDING, "random"):
            del self.filters[name]
        self.filters = {
            name: _charged(function, counts=name in {"batch", "slice", "round"})
            for name, function in self.filters.items()
        }
        self.filters[_COUNTED] = _counted
        self.globals = {"range": self.globals["range"]}

    def compiled(self, tree: nodes.Template) -> Template:
        """The template, its loops counted."""
        for loop in tree.find_all(nodes.For):
            loop.iter = nodes.Filter(loop.iter, _COUNTED, [], [], None, None, lineno=loop.lineno)
        tree.set_environment(self)
        return self.from_string(tree)

    def call(self, context: Context, function: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (whatever a template calls)
        if isinstance(function, LoopContext) and args:
            args = (_counted(context, args[0]), *args[1:])
        _budget(context).spend(CALL_STEPS)
        return super().call(context, function, *args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:  # noqa: ANN401 (whatever a template multiplies)
        if operator == "%" and isinstance(left, str):
            msg = "texts are put together with ~, not with %"
            raise SecurityError(msg)
        if operator == "*" and any(isinstance(side, str | list | tuple) for side in (left, right)):
            msg = "texts and lists are not multiplied"
            raise SecurityError(msg)
        if (
            operator == "+"
            and isinstance(left, Sized)
            and isinstance(right, Sized)
            and len(left) + len(right) > _MAX_CHARS
        ):
            msg = f"texts and lists of more than {_MAX_CHARS} are not put together"
            raise SecurityError(msg)
        if operator == "**" and not abs(right) <= _MAX_POWER:
            msg = f"powers above {_MAX_POWER} are not computed"
            raise SecurityError(msg)
        if operator in {"*", "**"} and _bits(left) * (right if operator == "**" else 1) + _bits(right) > _MAX_BITS:
            msg = f"numbers of more than {_MAX_BITS} bits are not computed"
            raise SecurityError(msg)
        return super().call_binop(context, operator, left, right)


def budgeted(fields: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """The variables of one rendering: its fields, and a budget of its own."""
    return {**dict(fields), _BUDGET: Budget()}


def _budget(context: Context) -> Budget:
    found: Any = context.resolve(_BUDGET)
    return cast("Budget", found)


@pass_context
def _counted(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    budget = _budget(context)
    for item in items:
        budget.spend(1)
        yield item


def _charged(function: Callable[..., Any], *, counts: bool) -> Callable[..., Any]:
    """A filter that pays for the items, or characters, that it is given. `counts`: its first argument says how much it is to make."""
    passed = _PassArg.from_obj(function)

    @pass_context
    def charged(context: Context, value: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 (whatever a filter takes)
        _budget(context).spend(FILTER_STEPS + _size(value))
        if counts and any(isinstance(count, int) and abs(count) > _MAX_COUNT for count in (*args, *kwargs.values())):
            msg = f"counts above {_MAX_COUNT} are not for filters"
            raise SecurityError(msg)
        match passed:
            case _PassArg.context:
                return function(context, value, *args, **kwargs)
            case _PassArg.eval_context:
                return function(context.eval_ctx, value, *args, **kwargs)
            case _PassArg.environment:
                return function(context.environment, value, *args, **kwargs)
            case _:
                return function(value, *args, **kwargs)

    return charged


def _size(value: Any) -> int:  # noqa: ANN401 (whatever a filter takes)
    if isinstance(value, str):
        return len(value) // CHARS_PER_STEP
    return len(value) if isinstance(value, list | tuple | dict | range) else 0


def _bits(value: Any) -> int:  # noqa: ANN401 (whatever a template multiplies)
    return value.bit_length() if isinstance(value, int) else 0
