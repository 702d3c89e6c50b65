"""Children have the payload and the result of their handler. Only type checkers read this folder: nothing here runs."""

from typing import assert_type

from agentqueue import Agent, Child, ChildFailed, Context
from tests.typing.handlers import Request
from tests.typing.results import Found, Query, find, plain_search, tidy

agent = Agent("children")


@agent.job
async def plan(ctx: Context) -> Found:
    """Ask for children."""
    child = ctx.child(find, Query("Berlin"), key="Berlin", priority="high")
    assert_type(child, Child[Found])
    assert_type(await child, Found)
    assert_type(await child.result(timeout=5), Found)
    assert_type(await ctx.child(plain_search, Query("Oslo")), Found)
    assert_type(await ctx.child(tidy), None)
    assert_type(await ctx.gather([child]), list[Found])
    assert_type(await ctx.gather([child], on_error="collect"), list[Found | ChildFailed])
    ctx.child(find, Request("Berlin"))  # type: ignore[arg-type]
    ctx.gather([child], on_error="ignore")  # type: ignore[call-overload]
    return await child
