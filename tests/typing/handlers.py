"""Handlers, as their authors write them. Type checkers alone read this folder: nothing here runs.

A line with `type: ignore` is a mistake that a type checker must find: mypy refuses an ignore that is not needed.
"""

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, assert_type

from agentqueue import Agent, Backoff, Client, Context, Fatal, Retry, WorkerContext
from agentqueue.agent.job_definition import JobDefinition


@dataclass
class Request:
    """A handler's payload."""

    city: str


agent = Agent("search", queue="eu:search")
Agent(queue="search")  # type: ignore[call-arg]
assert_type(agent.jobs["search"], JobDefinition)

# --- decorators leave a function's type as it is


@agent.job
async def search(ctx: Context, request: Request) -> list[str]:
    """Return offers."""
    return [ctx.id, request.city]


@agent.job(
    name="rank-offers",
    timeout=timedelta(minutes=1),
    attempts=3,
    backoff={"type": "fixed", "delaySeconds": 1},
    keep_result=60,
)
async def rank(ctx: Context, limit: int = 10) -> int:
    """Return a count."""
    return limit + ctx.attempt


@agent.job(timeout=0.5, backoff=Backoff("fixed", delay=1))
def compute(ctx: Context) -> float:
    """Run in a thread."""
    return ctx.delivery / 2


class Service:
    """Handlers may be bound methods."""

    async def book(self, ctx: Context, seats: int) -> bool:
        """Return whether there were enough."""
        return seats < ctx.attempt


service = Service()
book = agent.job(name="book")(service.book)


async def decorated_functions_are_called_as_they_are(ctx: Context) -> None:
    """Tests of handlers call them so."""
    assert_type(await search(ctx, Request("Berlin")), list[str])
    assert_type(await rank(ctx), int)
    assert_type(await rank(ctx, limit=5), int)
    assert_type(compute(ctx), float)
    assert_type(await book(ctx, 2), bool)
    await search(ctx, "Berlin")  # type: ignore[arg-type]
    await search(ctx)  # type: ignore[call-arg]
    await compute(ctx)  # type: ignore[misc]


agent.job(timeout="1m")  # type: ignore[call-overload]
agent.job(attempt=3)  # type: ignore[call-overload]
agent.job("search")  # type: ignore[call-overload]


@agent.cron("0 3 * * *", timezone="Europe/Berlin", timeout=600)
async def nightly(ctx: Context) -> str:
    """Return the name."""
    return ctx.name


async def a_cron_is_a_handler(ctx: Context) -> None:
    """Tests call it so."""
    assert_type(await nightly(ctx), str)
    agent.cron(5)  # type: ignore[arg-type]
    agent.cron("0 3 * * *", attempt=3)  # type: ignore[call-arg]
    agent.cron("0 3 * * *", timeout="1m")  # type: ignore[arg-type]


# --- hooks


@agent.startup
async def open_pool(ctx: WorkerContext) -> None:
    """Open what handlers share."""
    assert_type(ctx.state, SimpleNamespace)
    assert_type((ctx.queue, ctx.worker), tuple[str, str])


@agent.shutdown
def close_pool(ctx: WorkerContext) -> None:
    """Close it."""
    ctx.log.info("closed")


def takes_nothing() -> None:
    """Take no context."""


agent.startup(takes_nothing)  # type: ignore[type-var]

# --- contexts


async def contexts(ctx: Context) -> None:
    """Every name that handlers use."""
    assert_type((ctx.id, ctx.name, ctx.queue), tuple[str, str, str])
    assert_type((ctx.attempt, ctx.delivery), tuple[int, int])
    assert_type(ctx.tags, Sequence[str])
    assert_type((ctx.tenant, ctx.trace, ctx.parent), tuple[str | None, str | None, str | None])
    assert_type(ctx.should_yield, bool)
    assert_type(ctx.ending == "cancelled", bool)
    print(ctx.ending == "canceled")  # type: ignore[comparison-overlap]
    assert_type(ctx.resume, Any)
    assert_type(ctx.state, Any)
    client: Client = ctx.client
    assert_type((await client.stats(ctx.queue)).waiting, int)
    assert_type(ctx.progress(50), Awaitable[None])
    assert_type(ctx.checkpoint({"page": 2}), Awaitable[None])
    await ctx.progress(12.5, "half way")
    ctx.log.info("searched", offers=3)
    ctx.progress("50")  # type: ignore[arg-type]
    ctx.progress()  # type: ignore[call-arg]


async def children(ctx: Context) -> None:
    """A job sends others."""
    assert_type(ctx.enqueue(search, Request("Berlin")), str)
    assert_type(ctx.enqueue(agent.jobs["search"], Request("Berlin"), priority="high"), str)
    assert_type(ctx.enqueue(("mail", "send"), {"to": "x"}, delay=timedelta(hours=1), tags=["a"]), str)
    ctx.enqueue("mail", "send")  # type: ignore[call-overload]
    ctx.enqueue(("mail", "send"), 1, 2)  # type: ignore[call-overload]
    ctx.enqueue(("mail", "send"), prio=1)  # type: ignore[call-overload]
    ctx.enqueue(("mail", "send"), delay="1h")  # type: ignore[call-overload]


# --- what handlers raise


def retries() -> None:
    """Retry takes its delay by keyword."""
    assert_type(Retry().after, float | None)
    Retry("the API is down", after=timedelta(seconds=5))
    Retry(after=2.5)
    Retry(5)  # type: ignore[arg-type]
    Retry("later", 5)  # type: ignore[call-arg]
    Retry(after="5 s")  # type: ignore[arg-type]
    Fatal("no such airport")


def backoffs() -> None:
    """Durations are in seconds."""
    Backoff("exponential", delay=1, max_delay=60.0, jitter=0)
    Backoff("linear")  # type: ignore[arg-type]
    Backoff(delay_seconds=1)  # type: ignore[call-arg]
