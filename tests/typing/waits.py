"""Waits and children have the types of what they wait for. Type checkers alone read this folder: nothing here runs."""

from datetime import timedelta
from typing import assert_type

from agentqueue import Context
from agentqueue.agent.children import Child, ChildFailed
from agentqueue.agent.waiting import First, Signal
from agentqueue.testing import HandlerContext, context
from tests.typing.results import Found, Query, agent, count, find, find_in_thread, plain_search, tidy


async def children(ctx: Context) -> None:
    """Right calls."""
    assert_type(ctx.child(find, Query("tea")), Child[Found])
    assert_type(ctx.child(find_in_thread, Query("tea"), key="a", priority="high"), Child[Found])
    assert_type(ctx.child(plain_search, Query("tea"), timeout=60), Child[Found])
    assert_type(await ctx.child(tidy), None)
    assert_type(await ctx.child(count, 5), int)
    assert_type(await ctx.child(find, Query("tea")).result(timeout=timedelta(hours=1)), Found)
    found = await ctx.gather([ctx.child(find, Query(text)) for text in ("tea", "milk")], timeout=60)
    assert_type(found, list[Found])
    some = await ctx.gather([ctx.child(find, Query("tea"))], on_error="collect", need=1, cancel_rest=True)
    assert_type(some, list[Found | ChildFailed])


async def waits(ctx: Context) -> None:
    """Right calls."""
    assert_type(await ctx.wait_for("approval", timeout=timedelta(days=2)), Signal)
    await ctx.sleep(60)
    assert_type(await ctx.first(yes=ctx.wait_for("yes"), late=ctx.sleep(60)), First)
    async with ctx.busy():
        pass
    await ctx.emit({"tokens": ["a"]})


async def mistakes(ctx: Context) -> None:
    """Wrong calls."""
    ctx.child(find, "tea")  # type: ignore[arg-type]
    ctx.child(find)  # type: ignore[arg-type]
    ctx.child(tidy, 5)  # type: ignore[arg-type]
    ctx.child(find, Query("tea"), prio=5)  # type: ignore[call-overload]
    ctx.child("search", "find")  # type: ignore[call-overload]
    (await ctx.child(find, Query("tea"))).offer  # type: ignore[attr-defined]  # noqa: B018
    (await ctx.gather([ctx.child(find, Query("tea"))])).offers  # type: ignore[attr-defined]  # noqa: B018
    await ctx.gather([find])  # type: ignore[arg-type]
    await ctx.gather([ctx.child(tidy)], on_error="ignore")  # type: ignore[call-overload]
    await ctx.wait_for("approval", timeout="2d")  # type: ignore[arg-type]
    (await ctx.wait_for("approval")).date  # type: ignore[attr-defined]  # noqa: B018
    await ctx.sleep()  # type: ignore[call-arg]


def unit_tests() -> None:
    """A context for handlers alone."""
    assert_type(context(signals={"go": 1}, children={find: Found([]), agent.jobs["tidy"]: None}), HandlerContext)
    context(signal={"go": 1})  # type: ignore[call-arg]
