"""A model of schedules: whatever is done to a queue, the chain of ticks never breaks, and no tick is completed twice.

Hypothesis claims, completes, fails, loses leases and replies, cancels, replays, pauses, changes the schedule, removes
ticks behind AgentQueue's back, and lets time pass. After housekeeping, the next tick always stands in the queue.
"""

import asyncio
import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agentqueue import Client
from agentqueue.errors import JobNotFound
from agentqueue.keys import IN_PROGRESS, KeySpace
from agentqueue.model.job import decode_job
from agentqueue.model.schedule import Missed, Schedule, tick_id
from agentqueue.store import EngineSettings, Schedules, run_housekeeping
from agentqueue.store.time_travel import advance_time
from tests.support.raw_queue import RawQueue
from tests.support.replies import awaited
from tests.support.servers import KINDS, RunningServer, run_server

if TYPE_CHECKING:
    from agentqueue.model.outcomes import Claimed

QUEUE = "reports"
MINUTE_MS = 60_000
EXAMPLES = int(os.environ.get("AGENTQUEUE_SCHEDULE_EXAMPLES", "25"))
"""Runs of the model on each server; raise it for a long proof."""
CRONS = ("* * * * *", "*/5 * * * *", "*/20 * * * * *", "0 * * * *")
ACTIONS = (
    "claim",
    "claim-lost-reply",
    "complete",
    "fail",
    "die",
    "lose-lease",
    "cancel-next",
    "replay",
    "pause",
    "resume",
    "pause_schedule",
    "resume_schedule",
    "change",
    "remove-next",
    "housekeep",
    "advance",
)


@pytest.fixture(scope="module", params=KINDS)
def model_server(request: pytest.FixtureRequest) -> Iterator[RunningServer]:
    with run_server(request.param) as running:
        yield running


class Model:
    """One queue with one schedule, and all that the test knows of its ticks."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.redis = client.server.redis
        self.schedules = Schedules(client.server)
        self.raw = RawQueue(client.server, QUEUE)
        self.held = list["Claimed"]()
        self.completed: list[str] = []
        self.started: list[int] = []

    async def put(self, cron: str, missed: Missed) -> None:
        schedule = Schedule("each", cron=cron, job="report", missed=missed)
        await self.schedules.put(QUEUE, source="resource", schedules=[schedule])

    async def claim(self, *, lost_reply: bool) -> None:
        self.raw.seq += 1
        for _ in range(2 if lost_reply else 1):
            reply = await self.raw.engine.finish_and_claim(seq=self.raw.seq, owner=self.raw.owner, want=2)
        for job in reply.claimed:
            tick = decode_job(job.record or b"").tick
            assert tick is not None
            assert job.id not in self.completed, "a tick that has been completed runs again"
            assert job.id not in [held.id for held in self.held], "two workers hold a tick"
            if job.delivery == 1 and tick[1] not in self.started:
                self.started.append(tick[1])
            self.held.append(job)

    async def end(self, how: str) -> None:
        if not self.held:
            return
        job = self.held.pop(0)
        if how == "complete":
            await self.raw.complete(job)
            self.completed.append(job.id)
        elif how == "fail":
            await self.raw.fail(job, delay_ms=0)
        elif how == "die":
            await self.raw.add_dead_letter(job)
        else:  # the worker is gone: its lease is released after a crash
            await self.raw.engine.release_owner_leases(owner=self.raw.owner, reason="killed")
            self.held = []
            self.raw = RawQueue(self.client.server, QUEUE)

    async def act(self, action: str, cron: str, missed: Missed, minutes: int) -> None:
        waiting = await self.next_id()
        if action in ("complete", "fail", "die", "lose-lease"):
            await self.end(action)
            return
        match action:
            case "claim" | "claim-lost-reply":
                await self.claim(lost_reply=action != "claim")
            case "cancel-next" if waiting is not None:
                with contextlib.suppress(JobNotFound):  # another program has removed it
                    await self.client.cancel(waiting, queue=QUEUE)
                    self.completed.append(waiting)
            case "replay":
                await self.client.replay(QUEUE, all=True)
            case "pause" | "resume":
                await getattr(self.client, action)(QUEUE)
            case "pause_schedule" | "resume_schedule":
                await getattr(self.client, action)(QUEUE, "each")
            case "change":
                await self.put(cron, missed)
            case "remove-next" if waiting is not None:
                await self.redis.zrem(QUEUE, waiting)
            case "housekeep":
                await run_housekeeping(self.client.server, {QUEUE: EngineSettings()}, recent_ms=0)
            case "advance":
                await advance_time(self.client.store, minutes * MINUTE_MS)
            case _:
                pass

    async def next_id(self) -> str | None:
        (state,) = await self.schedules.read(QUEUE)
        return None if state.next_due_ms is None else tick_id(QUEUE, "each", state.next_due_ms)

    async def check(self) -> None:
        """Check that after housekeeping the next tick stands in the queue, unless the schedule is paused."""
        for _ in range(2):  # the first may compute due times, the second finds them
            await run_housekeeping(self.client.server, {QUEUE: EngineSettings()}, recent_ms=0)
        (state,) = await self.schedules.read(QUEUE)
        waiting = await self.next_id()
        if state.paused is not None:
            assert waiting is None
            return
        assert waiting is not None, "the chain is broken: no due time is known"
        score = await awaited(self.redis.zscore(KeySpace(QUEUE).queue, waiting))
        assert score is not None, "the chain is broken: the next tick is not in the queue"
        assert not await self.redis.exists(IN_PROGRESS + waiting), "the next tick has started, and is still the next"

    async def run_out(self) -> None:
        """End everything: nothing is left but the next tick."""
        await self.client.resume(QUEUE)
        await self.client.resume_schedule(QUEUE, "each")
        while self.held:
            await self.end("complete")
        await self.claim(lost_reply=False)
        while self.held:
            await self.end("complete")
            if not self.held:
                await self.claim(lost_reply=False)
        await self.check()
        await advance_time(self.client.store, 2 * 60 * MINUTE_MS)
        before = len(self.started)
        await run_housekeeping(self.client.server, {QUEUE: EngineSettings()}, recent_ms=0)
        await self.put("* * * * *", Missed.ALL)
        await advance_time(self.client.store, 2 * MINUTE_MS)
        await self.claim(lost_reply=False)
        assert len(self.started) > before, "no tick comes any more"
        assert len(self.completed) == len(set(self.completed))


steps = st.lists(
    st.tuples(st.sampled_from(ACTIONS), st.sampled_from(CRONS), st.sampled_from(list(Missed)), st.integers(1, 200)),
    max_size=25,
)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(cron=st.sampled_from(CRONS), missed=st.sampled_from(list(Missed)), actions=steps)
@pytest.mark.timeout(600)
def test_the_chain_of_ticks_never_breaks_and_no_tick_is_completed_twice(
    model_server: RunningServer, cron: str, missed: Missed, actions: list[tuple[str, str, Missed, int]]
) -> None:
    async def run() -> None:
        async with Client(model_server.url) as client:
            redis: Any = client.server.redis
            await redis.flushall()
            model = Model(client)
            await model.put(cron, missed)
            for action in actions:
                await model.act(*action)
                if action[0] in ("housekeep", "claim", "cancel-next"):
                    await model.check()
            await model.check()
            await model.run_out()

    asyncio.run(run())
