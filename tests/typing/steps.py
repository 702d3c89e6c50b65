"""Steps have the arguments and the value of their function. Type checkers alone read this folder: nothing here runs."""

import functools
from datetime import timedelta
from typing import assert_type

from agentqueue import Context, NotDone, step


async def plan(topic: str, size: int = 3) -> list[str]:
    """Take a text and an option."""
    return [topic] * size


def count(topic: str) -> int:
    """Run in a thread."""
    return len(topic)


async def tidy() -> None:
    """Take nothing."""


async def find_payment(key: str) -> str | NotDone:
    """Ask a provider."""
    return key or NotDone()


@step
async def book(flight: str, seats: int) -> bytes:
    """Be a step by a decorator."""
    return flight.encode() * seats


@step(name="pay-card", once=True, verify=find_payment, timeout=timedelta(seconds=5))
def pay(amount: int) -> str:
    """Be one with options, in a thread."""
    return str(amount)


async def steps(ctx: Context) -> None:
    """Right calls."""
    assert_type(await ctx.step("plan", plan, "tea"), list[str])
    assert_type(await ctx.step("plan", plan, "tea", size=4), list[str])
    assert_type(await ctx.step("plan", plan, "tea", 4, key="a", once=True), list[str])
    assert_type(await ctx.step("plan", plan, "tea", attempts=3, backoff=1.5, timeout=60), list[str])
    assert_type(await ctx.step("count", count, "tea"), int)
    assert_type(await ctx.step("count", count, "tea", once=True), int)
    assert_type(await ctx.step("tidy", tidy), None)
    assert_type(await ctx.step("tidy", tidy, once=True), None)
    assert_type(await ctx.step("plan", functools.partial(plan, size=4), "tea", once=True), list[str])
    assert_type(await book(ctx, "LIS", 2), bytes)
    assert_type(await book(ctx, "LIS", seats=2), bytes)
    assert_type(await pay(ctx, 5), str)
    assert_type(ctx.idempotency_key, str)


async def mistakes(ctx: Context) -> None:
    """Wrong calls."""
    await ctx.step("plan", plan, 5)  # type: ignore[arg-type]
    await ctx.step("plan", plan)  # type: ignore[arg-type, call-arg]
    await ctx.step("plan", plan, "tea", sise=4)  # type: ignore[call-arg]
    await ctx.step("plan", plan, "tea", onse=True)  # type: ignore[call-arg]
    await ctx.step("count", count, 5, once=True)  # type: ignore[call-arg, arg-type]
    await ctx.step(plan, "tea")  # type: ignore[call-overload]
    await ctx.step("plan", plan("tea"))  # type: ignore[call-overload]
    (await ctx.step("count", count, "tea")).upper()  # type: ignore[attr-defined]
    await book(ctx, 5, 2)  # type: ignore[arg-type]
    await book("LIS", 2)  # type: ignore[arg-type, call-arg]
    step(name="pay", ones=True)  # type: ignore[call-overload]
