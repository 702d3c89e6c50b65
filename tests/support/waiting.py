"""Waits for conditions, so that no test sleeps for a fixed time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar, overload

from agentqueue.client import Job
from agentqueue.client.status import JobStatus
from agentqueue.clock import monotonic

T = TypeVar("T")
DEADLINE = 15.0
"""Seconds after which a condition counts as never true. Nothing in the tests takes longer on a slow machine."""


@overload
async def until(condition: Callable[[], Awaitable[T | None]], *, what: str = ..., deadline: float = DEADLINE) -> T: ...


@overload
async def until(condition: Callable[[], T | None], *, what: str = ..., deadline: float = DEADLINE) -> T: ...


async def until(
    condition: Callable[[], Awaitable[T | None] | T | None],
    *,
    what: str = "the condition",
    deadline: float = DEADLINE,
) -> T:
    """Wait until the condition is true, checking every 5 ms, and return its value. It may be an async function."""
    ends = monotonic() + deadline
    while True:
        value = condition()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        assert monotonic() < ends, f"{what} did not hold within {deadline} s"
        await asyncio.sleep(0.005)


async def final(job: Job, *, deadline: float = DEADLINE) -> JobStatus:
    """Wait until the job's state is final, and return its status."""

    async def ask() -> JobStatus | None:
        status = await job.status()
        return status if status.is_final else None

    return await until(ask, what=f"job {job.id} is final", deadline=deadline)
