"""Tests of the ticks of schedules: the chain of next ticks, missed ones, changes and repairs."""

from collections.abc import AsyncIterator, Sequence

import pytest

from agentqueue import Client
from agentqueue.keys import KeySpace
from agentqueue.model.job import State, decode_job
from agentqueue.model.schedule import Missed, Schedule, tick_id
from agentqueue.store import EngineSettings, Schedules, ScheduleState, run_housekeeping
from agentqueue.store.time_travel import advance_time
from tests.support.raw_queue import RawQueue
from tests.support.replies import awaited

QUEUE = "reports"
HOUR_MS = 3_600_000
HOURLY = Schedule("hourly", cron="0 * * * *", job="report")


class Bed:
    """A queue with schedules, and a clock that the test moves."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.server = client.server
        self.schedules = Schedules(client.server)
        self.raw = RawQueue(client.server, QUEUE)

    async def put(self, *schedules: Schedule) -> None:
        await self.schedules.put(QUEUE, source="resource", schedules=schedules)

    async def state(self, name: str = "hourly") -> ScheduleState:
        return next(found for found in await self.schedules.read(QUEUE) if found.schedule.name == name)

    async def next_due(self, name: str = "hourly") -> int:
        due = (await self.state(name)).next_due_ms
        assert due is not None
        return due

    async def advance(self, ms: float) -> None:
        await advance_time(self.client.store, round(ms))

    async def advance_to_next(self, name: str = "hourly", *, late_ms: int = 1) -> int:
        """Move the clock to the next tick, and return its due time."""
        due = await self.next_due(name)
        await self.advance(due - await self.now_ms() + late_ms)
        return due

    async def now_ms(self) -> int:
        """Return the time of the schedules."""
        seconds, micros = await self.server.redis.time()
        shift = await awaited(self.server.redis.hget(KeySpace(QUEUE).ticks, "shift"))
        return int(seconds) * 1000 + int(micros) // 1000 + int(shift or 0)

    async def run_due(self) -> list[int]:
        """Run the jobs that are due until there are none, and return the due times of the ticks."""
        ran = []
        while claimed := await self.raw.claim(10):
            for job in claimed:
                tick = decode_job(job.record or b"").tick
                assert tick is not None
                ran.append(tick[1])
                await self.raw.complete(job)
        return ran

    async def waiting(self) -> list[str]:
        """Return the IDs of the ticks in the queue."""
        keys = KeySpace(QUEUE)
        found = [await awaited(self.server.redis.zrange(key, 0, -1)) for key in keys.levels]
        return sorted(job_id.decode() for ids in found for job_id in ids)

    async def keep_house(self) -> None:
        await run_housekeeping(self.server, {QUEUE: EngineSettings()}, recent_ms=0)


@pytest.fixture
async def bed(server_url: str) -> AsyncIterator[Bed]:
    async with Client(server_url) as client:
        yield Bed(client)


def ticks(*due: int, name: str = "hourly") -> list[str]:
    return sorted(tick_id(QUEUE, name, ms) for ms in due)


async def test_the_next_tick_stands_in_the_queue_as_a_delayed_job(bed: Bed) -> None:
    await bed.put(HOURLY)
    due = await bed.next_due()
    assert await bed.waiting() == ticks(due)
    status = await bed.client.status(tick_id(QUEUE, "hourly", due), queue=QUEUE)
    assert (status.state, status.name) == (State.DELAYED, "report")
    stats = await bed.client.stats(QUEUE)
    assert stats.delayed == 1


async def test_the_claim_of_a_tick_enqueues_the_next_one(bed: Bed) -> None:
    await bed.put(HOURLY)
    first = await bed.advance_to_next()
    claimed = await bed.raw.claim_one()
    assert await bed.next_due() == first + HOUR_MS
    assert await bed.waiting() == ticks(first, first + HOUR_MS)
    assert decode_job(claimed.record or b"").tick == ("hourly", first)
    await bed.raw.complete(claimed)
    assert await bed.waiting() == ticks(first + HOUR_MS)


async def test_a_tick_that_runs_again_enqueues_no_other(bed: Bed) -> None:
    await bed.put(HOURLY)
    first = await bed.advance_to_next()
    await bed.raw.fail(await bed.raw.claim_one(), delay_ms=0)
    assert await bed.run_due() == [first]
    assert await bed.waiting() == ticks(first + HOUR_MS)
    assert (await bed.state()).started == 1


@pytest.mark.parametrize(("missed", "expected"), [(Missed.SKIP, []), (Missed.ONE, [2]), (Missed.ALL, [0, 1, 2])])
async def test_missed_ticks_after_an_outage(bed: Bed, missed: Missed, expected: Sequence[int]) -> None:
    await bed.put(Schedule("hourly", cron="0 * * * *", job="report", missed=missed))
    first = await bed.advance_to_next(late_ms=HOUR_MS * 2 + HOUR_MS * 2 // 3)
    assert await bed.run_due() == [first + number * HOUR_MS for number in expected]
    assert await bed.waiting() == ticks(first + 3 * HOUR_MS)
    state = await bed.state()
    assert (state.started, state.missed) == (len(expected), 3 - len(expected))
    await bed.advance_to_next()
    assert await bed.run_due() == [first + 3 * HOUR_MS]


@pytest.mark.parametrize(
    ("missed", "expected", "left_out"), [(Missed.SKIP, 0, 200), (Missed.ONE, 1, 199), (Missed.ALL, 100, 100)]
)
async def test_an_outage_longer_than_the_times_ahead(bed: Bed, missed: Missed, expected: int, left_out: int) -> None:
    await bed.put(Schedule("hourly", cron="0 * * * *", job="report", missed=missed))
    first = await bed.advance_to_next(late_ms=HOUR_MS * 199 + HOUR_MS * 2 // 3)
    await bed.keep_house()
    due = [first + number * HOUR_MS for number in range(200)]
    ran = await bed.run_due()
    await bed.keep_house()
    assert await bed.run_due() == []
    assert len(ran) == expected
    assert ran == (due[-expected:] if missed is not Missed.ALL and expected else ran)
    assert (await bed.state()).missed == left_out
    assert await bed.waiting() == ticks(first + 200 * HOUR_MS)
