"""Durable calls, as the context of a job passes them to the worker."""

import inspect
import re
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, Self, TypedDict

from agentqueue.agent.outcomes import DurableError
from agentqueue.agent.return_value import ReturnValue
from agentqueue.agent.waiting import First, Signal, Waiting
from agentqueue.errors import UsageError
from agentqueue.model.retry_policy import MIN_TIMEOUT_S, Backoff, Seconds, check_attempts, seconds

if TYPE_CHECKING:
    from agentqueue.model.new_job import NewJob

current_step: Final[ContextVar[str | None]] = ContextVar("current_step", default=None)
"""The step that runs in this task or thread, such as `plan#1`; None outside of steps."""


_STEP_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:-]{0,99}")
MAX_KEY: Final = 200
"""Maximum length of a call's key, in characters."""


def check_key(key: str | int | None, what: str) -> str | None:
    """Return the key of a call as text, after a check.

    Raises:
        DurableError: It is empty, too long, or has characters that people can't see. The message begins with `what`.
    """
    text = None if key is None else str(key)
    if text is not None and not (1 <= len(text) <= MAX_KEY and text.isprintable()):
        raise DurableError(f"{what}: its key {text!r:.80} must have 1 to {MAX_KEY} printable characters")
    return text


class StepOptions(TypedDict, total=False):
    """The keywords of `ctx.step` and `@step`."""

    key: str | int | None
    """Distinguishes calls of one name that several tasks of the job make, such as the ID of an item."""
    timeout: Seconds | None
    """Longest duration of one call of the function."""
    attempts: int | None
    """Number of calls, including the first, that this run of the job makes while the function raises. One by default.
    The job counts no attempt, and keeps its slot meanwhile."""
    backoff: Backoff | Mapping[str, Any] | Seconds | None
    """Delay between these calls. By default the handler's."""
    once: bool
    """Call the function at most once, whatever happens. See `Context.step`."""
    verify: Callable[[str], Awaitable[Any]] | None
    """With `once`: asks the provider what has become of a call that was cut off. It gets the idempotency key, and
    returns the step's value, or `NotDone`."""


_STEP_OPTIONS: Final = frozenset(StepOptions.__annotations__)


@dataclass(frozen=True, slots=True)
class StepCall:
    """A call of `ctx.step`, checked."""

    name: str
    function: Callable[..., Any]
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    value: ReturnValue
    """The value that the function returns, by its annotation."""
    key: str | None
    timeout: float | None
    """Longest duration of one call of the function, in seconds."""
    attempts: int
    backoff: Backoff | None
    """None: the handler's."""
    once: bool
    verify: Callable[[str], Any] | None

    @property
    def place(self) -> str:
        """Return the name of the call's place in the journal, which it shares with other calls of the same name."""
        return self.name if self.key is None else f"{self.name}/{self.key}"

    @property
    def is_async(self) -> bool:
        """Return whether the function is an async one. A plain one runs in a thread."""
        return inspect.iscoroutinefunction(inspect.unwrap(self.function))

    @classmethod
    def of(cls, name: str, function: Callable[..., Any], args: Sequence[Any], keywords: Mapping[str, Any]) -> Self:
        """Return the call with these arguments of `ctx.step`.

        Args:
            name: The step's name.
            function: The step's function.
            args: Its arguments.
            keywords: Its keyword arguments, and the options of the step.

        Raises:
            DurableError: The step cannot be made as it is written. The message says what to write instead.
        """
        options = {option: value for option, value in keywords.items() if option in _STEP_OPTIONS}
        kwargs = {key: value for key, value in keywords.items() if key not in _STEP_OPTIONS}
        if not (type(name) is str and _STEP_NAME.fullmatch(name)):
            raise DurableError(
                f"step name {name!r:.80} must have 1 to 100 characters: letters, digits and _.:-; "
                "pass what differs from call to call as key="
            )
        what = f'step "{name}"'
        key = check_key(options.get("key"), what)
        if not callable(function):
            raise DurableError(f"{what} needs a function, not {function!r:.80}: pass it and its arguments apart")
        timeout, backoff = options.get("timeout"), options.get("backoff")
        once, verify = bool(options.get("once")), options.get("verify")
        try:
            attempts = check_attempts(options.get("attempts")) or 1
            timeout = None if timeout is None else seconds(timeout, "timeout", least=MIN_TIMEOUT_S)
            backoff = None if backoff is None else Backoff.parse(backoff)
            value = ReturnValue.of(function)
            value.prepare()
        except UsageError as exc:
            raise DurableError(f"{what}: {exc}") from exc
        if once and attempts > 1:
            raise DurableError(f"{what}: once=True and attempts= exclude each other; raise NotDone for another call")
        if verify is not None and not once:
            raise DurableError(f"{what}: verify= goes with once=True only")
        return cls(name, function, args, kwargs, value, key, timeout, attempts, backoff, once, verify)


@dataclass(slots=True, eq=False)
class ChildCall:
    """A call of `ctx.child`. The worker fills in what it learns of the child."""

    job: "NewJob"
    name: str
    fingerprint: str
    """Fingerprint of target and payload."""
    key: str | None
    load: Callable[[Any], Any] | None
    """Returns the child's result as its handler's annotation says, from JSON. None: the JSON value is the result."""
    place: str = ""
    """The call among those of its run, the same in each run."""
    id: str | None = None
    """ID of the child, once it is sent."""
    is_awaited: bool = False


@dataclass(frozen=True, slots=True)
class GatherCall:
    """A call of `ctx.gather`, or an awaited child."""

    children: Sequence[ChildCall]
    collect: bool = False
    """Failed children are results."""
    need: int = 1
    timeout: float | None = None
    """In seconds."""
    cancel_rest: bool = False
    of_one: bool = False
    """A child is awaited: its result is wanted, and not a list."""


class Durable(Protocol):
    """The worker's part of a job's durable calls. Its methods are called in the handler's own task or thread.

    A method takes its place in the journal when it is called. The coroutine that it returns is awaited in the event
    loop; it raises CancelledError once the run is being ended.
    """

    def child(self, call: ChildCall) -> None:
        """Take the place of a child that the job asks for. See `Context.child`."""
        ...

    def gather(self, call: GatherCall) -> Coroutine[Any, Any, Any]:
        """Send children that are not sent yet, and wait for what they return. See `Context.gather`."""
        ...

    def step(self, call: StepCall) -> Coroutine[Any, Any, Any]:
        """Run a step, or return its value from the journal. See `Context.step`."""
        ...

    def wait_for(self, name: str, timeout: Seconds | None, key: str | None) -> Waiting[Signal]:
        """Return a wait for a signal. See `Context.wait_for`."""
        ...

    def sleep(self, duration: Seconds, key: str | None) -> Waiting[None]:
        """Return a wait for a time. See `Context.sleep`."""
        ...

    def first(self, waits: Mapping[str, Any], key: str | None) -> Coroutine[Any, Any, First]:
        """Wait for the first of several waits to end. See `Context.first`."""
        ...

    def emit(self, event: bytes, step: str) -> Awaitable[None]:
        """Append an event to the job's stream. See `Context.emit`. Called in the event loop's thread.

        Args:
            event: the event as JSON.
            step: the step that emits it, such as `plan#1`; empty outside of steps.
        """
        ...

    def busy(self) -> AbstractAsyncContextManager[None]:
        """Keep the run from being suspended. See `Context.busy`."""
        ...
