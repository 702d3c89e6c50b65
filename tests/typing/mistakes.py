"""Twelve mistakes that cost a run to find when no type checker finds them. mypy and pyright must find each.

Nothing here runs. A line with `type: ignore` is a mistake: both checkers refuse an ignore that is not needed.
"""

from datetime import timedelta

from agentqueue import Agent, Client, Context, SyncClient, declare
from tests.typing.handlers import Request, search
from tests.typing.results import Found, Query, find, plain_search, tidy

agent = Agent("mistakes")


async def payloads(client: Client) -> None:
    """1: another type. 2: none, where one is needed. 3: one, where none is taken."""
    await client.enqueue(find, Request("Berlin"))  # type: ignore[arg-type]
    await client.enqueue(find)  # type: ignore[arg-type]
    await client.enqueue(tidy, Query("Berlin"))  # type: ignore[arg-type]


async def results(client: Client) -> None:
    """4: a field that the result has not. 5: a handle in place of its result."""
    job = await client.enqueue(find, Query("Berlin"))
    (await job.result()).offer  # type: ignore[attr-defined]  # noqa: B018
    job.offers  # type: ignore[attr-defined]  # noqa: B018


async def options(client: Client) -> None:
    """6: an option that does not exist. 7: a duration as text."""
    await client.enqueue(find, Query("Berlin"), prio="high")  # type: ignore[call-overload]
    await client.enqueue(find, Query("Berlin"), delay="1h")  # type: ignore[call-overload]


@agent.job  # type: ignore[type-var]
async def without_context(query: Query, limit: int) -> Found:
    """8: no context. It would get the context as `query`."""
    return Found([query.text] * limit)


@agent.job(timeout=60)  # type: ignore[type-var]
async def two_payloads(ctx: Context, text: str, limit: int) -> Found:
    """9: two payloads."""
    return Found([ctx.id, text] * limit)


async def declarations(client: Client, sync: SyncClient) -> None:
    """10: a payload that the declaration does not have. 11: a result that it does not have."""
    await client.enqueue(plain_search, {"text": "Berlin"})  # type: ignore[arg-type]
    number: int = sync.enqueue(plain_search, Query("Berlin")).result()  # type: ignore[assignment]
    declare("search", "plain-search", Query, Found).offers  # type: ignore[attr-defined]  # noqa: B018
    print(number)


async def children(ctx: Context) -> None:
    """12: a child's payload."""
    ctx.enqueue(search, Query("Berlin"), delay=timedelta(seconds=1))  # type: ignore[arg-type]
