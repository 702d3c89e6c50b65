"""The decorator of functions that are steps: `await book(ctx, flight)` instead of `ctx.step("book", book, flight)`."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any, Concatenate, Final, ParamSpec, Protocol, TypeVar, Unpack, overload

from agentqueue.agent.context import Context
from agentqueue.agent.durable import StepOptions
from agentqueue.agent.return_value import ReturnValue

P = ParamSpec("P")
T = TypeVar("T")
decorated: Final[list[ReturnValue]] = []
"""The values of the functions that `step` has decorated. A worker checks their annotations before it starts."""


class _Decorator(Protocol):
    @overload
    def __call__(self, func: Callable[P, Awaitable[T]], /) -> Callable[Concatenate[Context, P], Awaitable[T]]: ...
    @overload
    def __call__(self, func: Callable[P, T], /) -> Callable[Concatenate[Context, P], Awaitable[T]]: ...


@overload
def step(func: Callable[P, Awaitable[T]], /) -> Callable[Concatenate[Context, P], Awaitable[T]]: ...
@overload
def step(func: Callable[P, T], /) -> Callable[Concatenate[Context, P], Awaitable[T]]: ...
@overload
def step(*, name: str | None = None, **options: Unpack[StepOptions]) -> _Decorator: ...
def step(func: Callable[..., Any] | None = None, /, *, name: str | None = None, **options: Unpack[StepOptions]) -> Any:
    """Decorate a function that is called as a step: `await book(ctx, flight)` calls `ctx.step("book", book, flight)`.

    Args:
        func: The function, which takes no context.
        name: The step's name, by default the function's.
        options: See `StepOptions`.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        label = name or function.__name__

        @functools.wraps(function)
        def call(ctx: Context, *args: Any, **kwargs: Any) -> Any:
            return ctx.step(label, functools.partial(function, **kwargs), *args, **options)

        decorated.append(ReturnValue.of(function))
        return call

    return decorate if func is None else decorate(func)
