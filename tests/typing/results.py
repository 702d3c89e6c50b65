"""Results have the type that the handler returns. Type checkers alone read this folder: nothing here runs."""

from dataclasses import dataclass
from typing import Any, assert_type

from agentqueue import Agent, Client, Context, JobDeclaration, SyncClient, declare
from agentqueue.client import Job, SyncJob


@dataclass
class Query:
    """A payload."""

    text: str


@dataclass
class Found:
    """A result."""

    offers: list[str]


agent = Agent("search")


@agent.job
async def find(ctx: Context, query: Query) -> Found:
    """Return offers."""
    return Found([ctx.id, query.text])


@agent.job
def find_in_thread(ctx: Context, query: Query) -> Found:
    """Do the same in a thread."""
    return Found([ctx.id, query.text])


@agent.job
async def tidy(ctx: Context) -> None:
    """Take no payload, and return nothing."""
    ctx.log.info("tidied")


@agent.job
def count(ctx: Context, limit: int = 10) -> int:
    """Take a payload that may be left out."""
    return limit + ctx.attempt


@agent.job
async def anything(ctx: Context, data: Any) -> Any:
    """Take and return JSON."""
    return [ctx.id, data]


plain_search = declare("search", "plain-search", Query, Found)
sweep = declare("search", "sweep")
total = declare("search", "total", None, int)
names = declare("search", "names", list[str], dict[str, int])


def declarations_have_both_types() -> None:
    """None stands for no payload, and for a handler that returns nothing."""
    assert_type(plain_search, JobDeclaration[Query, Found])
    assert_type(sweep, JobDeclaration[None, None])
    assert_type(total, JobDeclaration[None, int])
    assert_type(names, JobDeclaration[list[str], dict[str, int]])


async def of_a_client(client: Client) -> None:
    """The function or the declaration gives the type."""
    assert_type(await client.enqueue(find, Query("Berlin")), Job[Found])
    assert_type(await (await client.enqueue(find, Query("Berlin"))).result(timeout=5), Found)
    assert_type(await client.enqueue(find_in_thread, Query("Berlin"), priority="high"), Job[Found])
    assert_type(await client.enqueue(tidy), Job[None])
    assert_type(await client.enqueue(count), Job[int])
    assert_type(await client.enqueue(count, 5), Job[int])
    await client.enqueue(anything, {"any": ["thing"]})
    assert_type(await client.enqueue(plain_search, Query("Berlin"), id="trip"), Job[Found])
    assert_type(await client.enqueue(sweep), Job[None])
    assert_type(await client.enqueue(total), Job[int])
    assert_type(await client.enqueue(names, ["Berlin"]), Job[dict[str, int]])
    assert_type(await client.enqueue("search", "find", {"text": "Berlin"}), Job[Any])
    assert_type(await client.enqueue(agent.jobs["find"], {"text": "Berlin"}), Job[Any])


def of_a_sync_client(client: SyncClient) -> None:
    """As of Client."""
    assert_type(client.enqueue(find, Query("Berlin")).result(timeout=5), Found)
    assert_type(client.enqueue(find_in_thread, Query("Berlin")), SyncJob[Found])
    assert_type(client.enqueue(tidy), SyncJob[None])
    assert_type(client.enqueue(count), SyncJob[int])
    assert_type(client.enqueue(plain_search, Query("Berlin")).result(), Found)
    assert_type(client.enqueue(total), SyncJob[int])
    assert_type(client.enqueue("search", "find"), SyncJob[Any])


def handles_without_a_type_have_any(job: Job, sync_job: SyncJob) -> None:
    """Programs that name `Job` alone go on as they are."""
    assert_type(job, Job[Any])
    assert_type(sync_job, SyncJob[Any])


def of_children(ctx: Context) -> None:
    """A child's payload is checked too. Its ID is returned."""
    assert_type(ctx.enqueue(find, Query("Berlin")), str)
    assert_type(ctx.enqueue(plain_search, Query("Berlin"), priority="low"), str)
    assert_type(ctx.enqueue(tidy), str)
    assert_type(ctx.enqueue(count, 5, delay=1), str)
    assert_type(ctx.enqueue(sweep), str)
