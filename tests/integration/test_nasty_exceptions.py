"""Whatever a handler raises, its job ends, its worker goes on, and its dead letter can be read.

`AGENTQUEUE_EXAMPLES=10000 pytest tests/integration/test_nasty_exceptions.py` looks at more of them.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from agentqueue import Agent, Client, Context
from agentqueue.model.dead_letter import dead_letter_to_json
from agentqueue.model.exceptions import describe_traceback
from agentqueue.model.job import State
from agentqueue_worker import arq
from tests.support.arq_programs import running, settings_of
from tests.support.nasty import make_nasty, seeds
from tests.support.servers import run_server
from tests.support.waiting import final, until
from tests.support.workers import worker_process, working

EXAMPLES = int(os.environ.get("AGENTQUEUE_EXAMPLES", "40"))


class World:
    """Workers of every kind in one event loop, whose handlers raise what `exc` is at the moment."""

    def __init__(self, url: str, runner: asyncio.Runner) -> None:
        self.url = url
        self.runner = runner
        self.exc: BaseException = ValueError("no")
        self.number = 0
        self.agent = agent = Agent("native")

        @agent.job(attempts=1)
        async def awaited(ctx: Context) -> None:
            raise self.exc

        @agent.job(attempts=1)
        async def awaited_later(ctx: Context) -> None:
            await asyncio.sleep(0)
            raise self.exc

        @agent.job(attempts=1)
        def threaded(ctx: Context) -> None:
            raise self.exc

        @agent.job(attempts=1)
        async def returned(ctx: Context) -> Any:
            return [self.exc]

        async def function(ctx: dict[str, Any]) -> None:
            raise self.exc

        self.functions = [arq.func(function, name="function", max_tries=1)]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the client and run the workers."""
        async with AsyncExitStack() as stack:
            self.client = await stack.enter_async_context(Client(self.url))
            self.worker = await stack.enter_async_context(working(self.agent, self.url, concurrency=10))
            for queue, pickled in (("json", False), ("pickle", True)):
                worker = arq.Worker(
                    functions=self.functions,
                    queue_name=queue,
                    redis_settings=settings_of(self.url),
                    pickle=pickled,
                    handle_signals=False,
                    poll_delay=0.05,
                )
                await stack.enter_async_context(running(worker))
            yield

    async def check(self, exc: BaseException) -> str:
        """What is wrong, as text: pytest would print exceptions and their contexts, and trip over them."""
        try:
            await self.check_each(exc)
        except BaseException as failed:  # noqa: BLE001  # see above
            return f"{describe_traceback(failed)}\nwith {describe_traceback(exc)}"
        return ""

    async def check_each(self, exc: BaseException) -> None:
        """One job of each kind ends by it, and can be read."""
        self.exc, self.number = exc, self.number + 1
        names = [("native", name) for name in self.agent.jobs] + [("json", "function"), ("pickle", "function")]
        for queue, name in names:
            await self.client.enqueue(queue, name, id=f"{queue}-{name}-{self.number}")
        for queue, name in names:
            await self.check_one(queue, f"{queue}-{name}-{self.number}")
        assert self.worker.state.running == {}

    async def check_one(self, queue: str, job_id: str) -> None:
        async def state() -> State | None:
            status = await self.client.status(job_id, queue=queue)
            return status.state if status.is_final else None

        assert await until(state, what=f"{job_id} ends") == State.DEAD
        letter = await self.client.dead_letter(job_id)
        assert letter.error
        assert dead_letter_to_json(letter)
        assert job_id in [letter.id for letter in await self.client.dead_letters(queue, limit=10)]
        assert await self.client.discard(queue, [job_id]) == 1


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """It lives as long as all examples do."""
    with run_server("valkey") as server, asyncio.Runner() as runner:
        it = World(server.url, runner)
        living = it.running()
        runner.run(living.__aenter__())
        try:
            yield it
        finally:
            runner.run(living.__aexit__(None, None, None))


@pytest.mark.timeout(120 + EXAMPLES)
@settings(max_examples=EXAMPLES, suppress_health_check=[*HealthCheck])
@given(seed=seeds)
def test_no_exception_keeps_a_job_or_ends_a_worker(world: World, seed: int) -> None:
    problem = world.runner.run(world.check(make_nasty(seed)))
    assert problem == ""


EXITING = """
import asyncio
import sys

from agentqueue import Agent, Context

agent = Agent("exits")


async def leave() -> None:
    sys.exit(3)


@agent.job(attempts=1)
async def group(ctx: Context) -> None:
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(leave())


@agent.job(attempts=1)
async def forgotten(ctx: Context) -> str:
    task = asyncio.create_task(leave())
    await asyncio.wait([task])
    return "done"


@agent.job
async def beside(ctx: Context) -> int:
    while not ctx.should_yield:
        await asyncio.sleep(0.01)
    return ctx.delivery
"""


async def test_an_exit_in_a_task_that_a_handler_starts_ends_no_worker(server_url: str, tmp_path: Path) -> None:
    (tmp_path / "exits.py").write_text(EXITING)
    async with Client(server_url) as client:
        beside = await client.enqueue("exits", "beside")
        with worker_process("exits:agent", tmp_path, server_url) as worker:
            for _ in range(2):
                group, forgotten = [await client.enqueue("exits", name) for name in ("group", "forgotten")]
                assert (await final(group)).error == "SystemExit: 3"
                assert (await final(forgotten)).result == "done"
            worker.process.terminate()
            assert await worker.exit() == 0
        assert (await final(beside)).result == 1
    assert worker.output.count('"exit_in_a_task"') >= 2  # two at a time may be logged once
