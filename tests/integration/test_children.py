"""Children belong to one enqueueing of their parent's id: a rerun sends none twice, a new enqueueing sends its own."""

import asyncio

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from agentqueue import Agent, Client, Context
from agentqueue.client import async_client
from agentqueue.model.job import State, decode_job
from agentqueue.model.outcomes import Completed, Released
from agentqueue.store import Server, ServerOptions
from tests.support.arq_programs import arq_client
from tests.support.raw_queue import RawQueue
from tests.support.runtime import FakeRuntime
from tests.support.workers import work_off

NIGHTLY = "nightly-report"
CHILDREN = 2


class Story:
    """One job's id in and out of a queue; every start of its handler asks for two children."""

    def __init__(self, client: Client, server: Server) -> None:
        self.client, self.server = client, server
        self.raw_queue = RawQueue(server, "q")
        self.ids: list[str] = []
        """IDs of the children of this enqueueing. Empty before its first start."""
        self.former: set[str] = set()
        self.sent = 0

    async def enqueue(self) -> None:
        job = await self.client.enqueue("q", "nightly", id=NIGHTLY)
        if not job.deduplicated:
            self.former |= set(self.ids)
            self.ids = []

    async def forget(self) -> None:
        """Its result's retention passes."""
        await self.server.redis.delete(f"arq:result:{NIGHTLY}")

    async def replay(self) -> None:
        await self.client.replay("q", NIGHTLY)

    async def run(self, ending: str) -> None:
        claimed = await self.raw_queue.claim()
        if not claimed:
            return
        (job,) = claimed
        context = Context(FakeRuntime("q"), decode_job(job.record or b""), id=job.id, attempt=1, delivery=job.delivery)
        ids = [context.enqueue(("mail", "send"), n) for n in range(CHILDREN)]
        self.ids = self.ids or ids
        assert ids == self.ids
        assert not self.former & set(ids)
        match ending:
            case "finish":
                await self.raw_queue.end(Completed(job.id, job.level, b"{}", 3_600_000, 1, context.children))
                self.sent += CHILDREN
            case "fail":
                await self.raw_queue.fail(job, delay_ms=0)
            case "hand back":
                await self.raw_queue.end(Released(job.id, job.level))
            case "die":
                await self.raw_queue.add_dead_letter(job)
            case _:
                assert (
                    await self.raw_queue.engine.release_owner_leases(owner=self.raw_queue.owner, reason="killed") == 1
                )
                self.raw_queue = RawQueue(self.server, "q")

    async def play(self, steps: list[str]) -> None:
        for step in steps:
            if step in ("enqueue", "forget", "replay"):
                await getattr(self, step)()
            else:
                await self.run(step)
            assert (await self.client.stats("mail")).waiting == self.sent


STEPS = ("enqueue", "forget", "replay", "finish", "fail", "hand back", "die", "kill")


def test_each_enqueueing_sends_its_children_once(server_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(async_client, "now_ms", lambda: 1_800_000_000_000)  # all within a millisecond

    @settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.sampled_from(STEPS), max_size=25))
    @example(["enqueue", "finish", "forget"] * 3)
    @example(["enqueue", "fail", "kill", "hand back", "die", "replay", "kill", "finish"])
    @example(["enqueue", "die", "forget", "enqueue", "fail", "finish"])
    def check(steps: list[str]) -> None:
        asyncio.run(play(steps))

    async def play(steps: list[str]) -> None:
        async with Client(server_url) as client, Server(ServerOptions(server_url)) as server:
            await server.redis.flushall()
            await Story(client, server).play(steps)

    check()


async def test_a_job_that_an_arq_client_enqueues_again_sends_its_children_again(server_url: str) -> None:
    agent = Agent("arq:queue")

    @agent.job
    async def nightly(ctx: Context) -> None:
        ctx.enqueue(("mail", "send"))

    async with Client(server_url) as client, arq_client(server_url) as arq:
        for day in range(1, 4):
            assert await arq.enqueue_job("nightly", _job_id=NIGHTLY) is not None
            await work_off(agent, server_url)
            assert (await client.status(NIGHTLY)).state is State.COMPLETED
            assert (await client.stats("mail")).waiting == day
            await arq.delete(f"arq:result:{NIGHTLY}")
