"""Durable calls, as the context of a job passes them to the worker."""

from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Final, Protocol

current_step: Final[ContextVar[str | None]] = ContextVar("current_step", default=None)
"""The step that runs in this task or thread, as `name#n`; None outside of steps."""


@dataclass(frozen=True, slots=True)
class StepCall:
    """A call of `ctx.step`."""

    name: str
    function: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    key: str | None = None


class Durable(Protocol):
    """The worker's part of a job's durable calls. Its methods are called in the handler's own task or thread.

    A method takes its place in the journal when it is called. The coroutine that it returns is awaited in the event
    loop; it raises CancelledError once the run is being ended.
    """

    def step(self, call: StepCall) -> Coroutine[Any, Any, Any]:
        """Run a step, or return its value from the journal. See `Context.step`."""
        ...
