"""Handlers that a test calls without a server."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from agentqueue import Agent, Context, NotDone, StepFailed, declare
from agentqueue.agent.children import ChildFailed
from agentqueue.errors import InvalidPayload, UsageError
from agentqueue.model.journal import idempotency_key
from agentqueue.testing import context


@dataclass
class Query:
    text: str


@dataclass
class Found:
    offers: list[str]


agent = Agent("search")
declared = declare("other", "plain-search", Query, Found)


@agent.job
async def search(ctx: Context, query: Query) -> Found: ...  # type: ignore[empty-body]


async def plan(topic: str, size: int = 2) -> list[Found]:
    return [Found([topic] * size)]


async def test_a_step_runs_its_function_and_returns_what_a_journal_would() -> None:
    ctx = context(id="j")
    keys: list[str] = []

    async def pay() -> tuple[int, str]:
        keys.append(ctx.idempotency_key)
        return 1, "x"

    def in_thread() -> set[int]:
        return {1, 2}

    assert await ctx.step("plan", plan, "tea", size=1) == [Found(["tea"])]
    assert await ctx.step("pay", pay, once=True) == (1, "x")
    assert await ctx.step("pay", pay, once=True) == (1, "x")
    assert await ctx.step("set", in_thread) == {1, 2}
    assert keys == [idempotency_key("j", "pay#1"), idempotency_key("j", "pay#2")]


async def test_a_step_that_would_fail_on_a_server_fails_here() -> None:
    async def raises(exc: Exception) -> None:
        raise exc

    async def nested() -> None:
        await ctx.step("inner", plan, "x")

    async def no_json() -> Any:
        return object()

    ctx = context()
    with pytest.raises(ValueError, match="no"):
        await ctx.step("a", raises, ValueError("no"))
    with pytest.raises(StepFailed, match='step "b#1" has failed with ValueError: no'):
        await ctx.step("b", raises, ValueError("no"), once=True)
    with pytest.raises(NotDone):
        await ctx.step("c", raises, NotDone(), once=True)
    with pytest.raises(UsageError, match="make the call in the handler, between its steps"):
        await ctx.step("d", nested)
    with pytest.raises(InvalidPayload, match='the value of step "e"'):
        await ctx.step("e", no_json)


async def test_signals_are_given_and_others_time_out() -> None:
    ctx = context(signals={"approval": {"by": Found([])}})
    answer = await ctx.wait_for("approval")
    assert (answer.name, answer.data, answer.sender) == ("approval", {"by": {"offers": []}}, "test")
    assert (await ctx.wait_for("approval", timeout=5)).data == answer.data
    with pytest.raises(TimeoutError, match="no signal"):
        await ctx.wait_for("other", timeout=timedelta(days=2))
    with pytest.raises(UsageError, match=r"give it, context\(signals=\{'other': \.\.\.\}\)"):
        await ctx.wait_for("other")


async def test_sleeps_end_at_once_and_the_first_signal_that_is_given_wins() -> None:
    ctx = context(signals={"yes": 1})
    await ctx.sleep(timedelta(days=9))
    async with ctx.busy():
        first = await ctx.first(no=ctx.wait_for("no", timeout=5), yes=ctx.wait_for("yes"), late=ctx.sleep(60))
    assert (first.name, first.value.data) == ("yes", 1)
    late = await ctx.first(late=ctx.sleep(60), no=ctx.wait_for("no"))
    assert (late.name, late.value) == ("late", None)


async def test_children_return_what_the_test_gives() -> None:
    asked: list[Query] = []

    async def find(query: Query) -> Found:
        asked.append(query)
        return Found([query.text])

    ctx = context(children={search: find, declared: Found(["b"]), ("mail", "send"): {"sent": True}})
    results = await ctx.gather([ctx.child(search, Query("a")), ctx.child(declared, Query("x"))])
    assert results == [Found(["a"]), Found(["b"])]
    assert asked == [Query("a")]
    assert await ctx.child(("mail", "send"), {"to": "x"}) == {"sent": True}
    with pytest.raises(UsageError, match=r"context\(children=\{\('mail', 'list'\): \.\.\.\}\)"):
        await ctx.child(("mail", "list"))


async def test_a_child_fails_with_the_exception_that_is_given() -> None:
    ctx = context(children={search: ValueError("no offers")})
    with pytest.raises(ChildFailed, match="child search/search failed: ValueError: no offers") as caught:
        await ctx.child(search, Query("a"))
    assert (caught.value.target, caught.value.state) == (("search", "search"), "dead")
    (failed,) = await ctx.gather([ctx.child(search, Query("a"))], on_error="collect")
    assert isinstance(failed, ChildFailed)


async def test_a_context_has_what_the_test_says() -> None:
    ctx = context(id="j", name="n", queue="q", attempt=2, delivery=3, resume={"page": 2}, state=SimpleNamespace(pool=1))
    assert (ctx.id, ctx.name, ctx.queue, ctx.attempt, ctx.delivery) == ("j", "n", "q", 2, 3)
    assert (ctx.resume, ctx.state.pool, ctx.should_yield, ctx.ending) == ({"page": 2}, 1, False, None)
    await ctx.progress(50)
    await ctx.checkpoint({"page": 3})
    assert ctx.last_progress is not None
    assert (ctx.last_progress.percent, ctx.last_checkpoint) == (50, b'{"page":3}')
    ctx.enqueue(search, Query("later"))
    assert [job.queue for job in ctx.children] == ["search"]


def test_a_plain_handler_is_called_without_an_event_loop() -> None:
    def handler(ctx: Context) -> tuple[Any, Any]:
        ctx.progress(10)
        ctx.checkpoint({"page": 1})
        return ctx.step("plan", plan, "tea"), ctx.wait_for("go", timeout=1)

    found, signal = handler(context(signals={"go": 1}))
    assert (found, signal.data) == ([Found(["tea", "tea"])], 1)


async def test_a_plain_handler_is_called_in_a_thread() -> None:
    def handler() -> Any:
        return context().step("plan", plan, "tea", size=1)

    assert await asyncio.to_thread(handler) == [Found(["tea"])]
