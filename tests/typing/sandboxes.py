"""Tests of agents, as their authors write them. Type checkers alone read this folder: nothing here runs."""

from datetime import timedelta
from typing import assert_type

from agentqueue.client import Client, Job
from agentqueue.testing import Sandbox
from tests.typing.handlers import Request, agent, search


async def sandboxes() -> None:
    """A Sandbox has a client, runs handlers and moves the clock."""
    async with Sandbox(agent, agent, url="redis://localhost") as box:
        assert_type(box, Sandbox)
        assert_type(box.url, str)
        assert isinstance(box.client, Client)
        assert_type(await box.client.enqueue(search, Request("Berlin")), Job[list[str]])
        job = await box.client.enqueue(search, Request("Berlin"))
        assert_type(await job.result(timeout=5), list[str])
        await box.run_until_idle(concurrency=2, timeout=5)
        await box.advance(timedelta(hours=1))
        await box.advance(60)
        await box.advance("1h")  # type: ignore[arg-type]
    Sandbox("search")  # type: ignore[arg-type]
    with Sandbox():  # type: ignore[attr-defined]
        pass
