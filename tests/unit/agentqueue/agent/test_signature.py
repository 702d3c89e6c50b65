"""Handlers of every signature: those that are taken work, the others are refused with what to write."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import pytest
from pydantic import BaseModel

from agentqueue import Agent, Context
from agentqueue.agent.job_definition import JobDefinition
from agentqueue.errors import UsageError
from agentqueue.model.new_job import NO_PAYLOAD

if TYPE_CHECKING:
    from nowhere import Elsewhere  # type: ignore[import-not-found]


class Trip(BaseModel):
    day: str


class Mine(Context):
    pass


class Like(Protocol):
    id: str


def defined(func: Callable[..., Any]) -> JobDefinition:
    agent = Agent("q")
    agent.job(name="x")(func)
    return agent.jobs["x"]


def only_typed(ctx: "Elsewhere", trip: Trip) -> None: ...


class Called:
    async def __call__(self, ctx: Context, trip: Trip) -> None: ...

    def method(self, ctx: Context, *, retries: int = 3) -> None: ...

    @classmethod
    def of_class(cls, ctx: Context, trip: Trip, *rest: int, **more: int) -> None: ...


def wrapped(func: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return func(*args, **kwargs)

    return wrapper


@pytest.mark.parametrize(
    ("func", "payload"),
    [
        pytest.param(lambda ctx: None, None, id="ctx"),
        pytest.param(lambda _: None, None, id="unused"),
        pytest.param(lambda job_context: None, None, id="context-in-the-name"),
        pytest.param(lambda c, trip: None, Any, id="two-bare"),
        pytest.param(only_typed, Trip, id="context-known-to-a-type-checker-alone"),
        pytest.param(Called(), Trip, id="object"),
        pytest.param(Called().method, None, id="method-with-a-keyword"),
        pytest.param(Called.of_class, Trip, id="surplus"),
        pytest.param(wrapped(Called()), Trip, id="wrapped"),
        pytest.param(functools.partial(lambda a, ctx, trip: None, 1), Any, id="partial"),
    ],
)
def test_what_may_be_a_handler(func: Callable[..., Any], payload: Any) -> None:
    assert defined(func).payload.annotation is payload


def test_a_context_may_be_annotated_in_many_ways() -> None:
    def subclass(job: Mine) -> None: ...
    def protocol(job: Like) -> None: ...
    def either(job: Context | None) -> None: ...
    def annotated(job: Annotated[Context, "x"]) -> None: ...
    def anything(job: Any) -> None: ...
    def text(job: "Context") -> None: ...

    for func in (subclass, protocol, either, annotated, anything, text):
        assert defined(func).payload.parameter is None


@pytest.mark.parametrize(
    ("func", "says"),
    [
        pytest.param(lambda: None, r"must take \(ctx\) or \(ctx, payload\)", id="nothing"),
        pytest.param(lambda ctx, *, n: None, "must take", id="keyword-without-default"),
        pytest.param(lambda ctx, trip, *, n: None, "must take", id="keyword-beside-a-payload"),
        pytest.param(lambda ctx, a, b: None, "put several values into one model", id="three"),
        pytest.param(lambda *, ctx: None, "must take", id="keyword-context"),
        pytest.param(lambda *args: None, "must take", id="wrapper-without-wraps"),
        pytest.param(lambda ctx, *args: None, r"never gets anything in \*args.*write \(ctx, payload\)", id="args"),
        pytest.param(lambda ctx, **more: None, r"never gets anything in \*\*more", id="kwargs"),
        pytest.param(lambda trip: None, r"write .*\(ctx: Context, trip\); annotate it, \(trip: Context\)", id="bare"),
        pytest.param(Trip, "is a class", id="class"),
        pytest.param(max, "has no signature", id="no-signature"),
    ],
)
def test_an_invalid_handler_is_refused_with_a_correction(func: Callable[..., Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        defined(func)


def test_a_handler_without_a_context_is_refused() -> None:
    async def search(trip: Trip) -> None: ...
    async def count(n: int, more: int) -> None: ...
    async def maybe(trip: Trip | None) -> None: ...

    for func, says in ((search, r"search\(ctx: Context, trip: "), (count, "no place for"), (maybe, "no place for")):
        with pytest.raises(UsageError, match=says):
            defined(func)


def test_a_cron_takes_no_handler_that_needs_a_payload() -> None:
    agent = Agent("q")

    def daily(ctx: Context, day: str) -> None: ...
    def usual(ctx: Context, day: str = "today") -> None: ...
    def nothing(ctx: Context) -> None: ...

    known = agent.job(name="known")(daily)
    for func in (daily, known):
        with pytest.raises(UsageError, match=r"daily needs a payload, and a cron's job has none: take \(ctx\) alone"):
            agent.cron("* * * * *")(func)
    agent.cron("* * * * *")(usual)
    agent.cron("* * * * *")(nothing)
    assert [cron.job.name for cron in agent.crons] == ["usual", "nothing"]


def test_a_default_is_not_taken_for_none() -> None:
    def number(ctx: Context, n: int = 5) -> None: ...
    def optional(ctx: Context, n: int | None = 5) -> None: ...
    def needed(ctx: Context, n: int) -> None: ...
    def needed_or_none(ctx: Context, n: int | None) -> None: ...

    assert defined(number).payload.dump() is NO_PAYLOAD
    assert defined(optional).payload.dump() is NO_PAYLOAD
    assert defined(optional).payload.dump(None) is None
    assert defined(needed_or_none).payload.dump() is NO_PAYLOAD
    for func, given in ((number, (None,)), (needed, ()), (needed, (None,))):
        with pytest.raises(UsageError, match="int refuses the payload"):
            defined(func).payload.dump(*given)
