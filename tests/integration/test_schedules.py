"""Tests of the ticks of schedules: the chain of next ticks, missed ones, changes and repairs."""

from collections.abc import AsyncIterator, Sequence

import pytest

from agentqueue import Client
from agentqueue.errors import NotFound, UsageError
from agentqueue.keys import JOB, KeySpace
from agentqueue.model.job import State, decode_job
from agentqueue.model.new_job import NO_PAYLOAD
from agentqueue.model.schedule import Missed, Schedule, tick_id
from agentqueue.model.times import from_ms
from agentqueue.store import CodeSet, EngineSettings, Registrations, Schedules, ScheduleState, run_housekeeping
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


# --- changes


async def test_a_schedule_that_is_removed_loses_its_waiting_tick(bed: Bed) -> None:
    await bed.put(HOURLY)
    due = await bed.next_due()
    reply = await bed.schedules.put(QUEUE, source="resource", schedules=[])
    assert reply.removed == ["hourly"]
    assert await bed.waiting() == []
    assert not await bed.server.redis.exists(JOB + tick_id(QUEUE, "hourly", due))
    assert await bed.schedules.read(QUEUE) == []


async def test_a_tick_that_runs_goes_on_when_its_schedule_is_removed(bed: Bed) -> None:
    await bed.put(HOURLY)
    first = await bed.advance_to_next()
    job = await bed.raw.claim_one()
    await bed.put()
    assert await bed.waiting() == ticks(first)
    await bed.raw.complete(job)
    assert await bed.waiting() == []


async def test_another_cron_moves_the_waiting_tick(bed: Bed) -> None:
    await bed.put(HOURLY)
    await bed.put(Schedule("hourly", cron="30 * * * *", job="report"))
    due = await bed.next_due()
    assert due % HOUR_MS == HOUR_MS // 2
    assert await bed.waiting() == ticks(due)


@pytest.mark.parametrize(
    "changed",
    [
        Schedule("hourly", cron="0 * * * *", job="other"),
        Schedule("hourly", cron="0 * * * *", job="report", data={"day": 1}),
        Schedule("hourly", cron="0 * * * *", job="report", priority="urgent"),  # type: ignore[arg-type]  # as parse does
    ],
    ids=["job", "data", "priority"],
)
async def test_a_late_tick_keeps_its_time_and_gets_the_new_job(bed: Bed, changed: Schedule) -> None:
    await bed.put(HOURLY)
    first = await bed.advance_to_next()
    await bed.put(changed)
    assert await bed.waiting() == ticks(first)
    job = await bed.raw.claim_one()
    record = decode_job(job.record or b"")
    assert (record.name, list(record.args)) == (changed.job, [] if changed.data is NO_PAYLOAD else [changed.data])
    assert job.level is changed.priority


async def test_the_same_schedules_again_change_nothing(bed: Bed) -> None:
    await bed.put(HOURLY)
    before = await bed.waiting()
    reply = await bed.schedules.put(QUEUE, source="resource", schedules=[HOURLY])
    assert (reply.written, reply.removed) == ([], [])
    assert await bed.waiting() == before


async def test_a_renamed_schedule_is_a_new_one(bed: Bed) -> None:
    await bed.put(HOURLY)
    due = await bed.next_due()
    await bed.put(Schedule("each-hour", cron="0 * * * *", job="report"))
    assert await bed.waiting() == ticks(due, name="each-hour")


async def test_two_schedules_of_one_name_are_refused(bed: Bed) -> None:
    with pytest.raises(UsageError, match="queue 'reports' has two schedules 'hourly'; give each its own name"):
        await bed.put(HOURLY, HOURLY)


async def test_a_suspended_schedule_has_no_tick_and_misses_none(bed: Bed) -> None:
    await bed.put(HOURLY)
    suspended = Schedule("hourly", cron="0 * * * *", job="report", suspend=True)
    await bed.put(suspended)
    assert await bed.waiting() == []
    await bed.advance(5 * HOUR_MS)
    await bed.keep_house()
    assert await bed.run_due() == []
    await bed.put(HOURLY)
    state = await bed.state()
    assert state.next_due_ms is not None
    assert state.next_due_ms > await bed.now_ms()
    assert (state.started, state.missed) == (0, 0)


async def test_a_pause_by_people_outlives_changes_and_misses_no_tick(bed: Bed) -> None:
    await bed.put(HOURLY)
    assert await bed.schedules.pause(QUEUE, "hourly", "by ana")
    assert not await bed.schedules.pause(QUEUE, "hourly", "by ben")
    assert (await bed.state()).paused == "by ana"
    await bed.put(Schedule("hourly", cron="0 * * * *", job="other"))
    await bed.keep_house()
    assert await bed.waiting() == []
    await bed.advance(5 * HOUR_MS)
    assert await bed.schedules.resume(QUEUE, "hourly")
    assert not await bed.schedules.resume(QUEUE, "hourly")
    await bed.advance_to_next()
    assert len(await bed.run_due()) == 1
    assert (await bed.state()).missed == 0


async def test_no_two_queues_share_a_tick(bed: Bed) -> None:
    other = "mail"
    await bed.put(HOURLY)
    await bed.schedules.put(other, source="resource", schedules=[HOURLY])
    due = await bed.next_due()
    for queue in (QUEUE, other):
        assert (await bed.client.status(tick_id(queue, "hourly", due))).queue == queue


# --- code and resource


async def register(bed: Bed, *crons: Schedule, starts: bool = True) -> bool:
    code = CodeSet({"report": None}, crons)
    registered = await Registrations(bed.server).register(
        QUEUE, code, worker="w", version="1", time_ms=1, starts=starts
    )
    if registered:
        await bed.schedules.put(QUEUE, source="code", schedules=crons)
    return registered


async def test_each_source_replaces_its_own_schedules(bed: Bed) -> None:
    nightly = Schedule("nightly", cron="0 3 * * *", job="report")
    await register(bed, HOURLY)
    await bed.put(nightly)
    assert [state.source for state in await bed.schedules.read(QUEUE)] == ["code", "resource"]
    await bed.put()
    assert [state.schedule for state in await bed.schedules.read(QUEUE)] == [HOURLY]


async def test_the_resource_wins_over_the_code_which_comes_back_after_it(bed: Bed) -> None:
    own = Schedule("hourly", cron="30 * * * *", job="report")
    await register(bed, HOURLY)
    reply = await bed.schedules.put(QUEUE, source="resource", schedules=[own])
    assert reply.shadowed == ["hourly"]
    assert (await bed.state()).schedule == own
    assert (await bed.schedules.put(QUEUE, source="code", schedules=[HOURLY])).shadowed == ["hourly"]
    assert (await bed.state()).schedule == own
    await bed.put()
    state = await bed.state()
    assert (state.schedule, state.source) == (HOURLY, "code")
    assert await bed.waiting() == ticks(state.next_due_ms or 0)


async def test_an_older_worker_does_not_take_away_what_a_newer_one_has_registered(bed: Bed) -> None:
    new = Schedule("new", cron="0 * * * *", job="report")
    assert await register(bed, HOURLY)
    assert await register(bed, HOURLY, new)
    newer = CodeSet({"report": None}, [HOURLY, new]).fingerprint
    assert not await register(bed, HOURLY), "an old pod that starts again during the rollout"
    assert len(await bed.schedules.read(QUEUE)) == 2

    await age_registration(bed)
    await bed.raw.heartbeat(b'{"registration":"%s"}' % newer.encode())
    assert not await register(bed, HOURLY), "a worker with the newer code is alive"
    await bed.raw.engine.deregister_worker("hand")
    assert await register(bed, HOURLY), "a rollback"
    assert [state.schedule for state in await bed.schedules.read(QUEUE)] == [HOURLY]
    assert not await register(bed, HOURLY, new, starts=False), "and a pod that the rollback replaces"


async def age_registration(bed: Bed) -> None:
    """Let the registration be older than the time in which its worker may not have sent a heartbeat."""
    await awaited(bed.server.redis.hincrby(KeySpace(QUEUE).registration, "at", -60_000))


async def test_a_registration_tells_who_has_registered_what(bed: Bed) -> None:
    registrations = Registrations(bed.server)
    assert await registrations.read(QUEUE) is None
    assert await registrations.job_names(QUEUE) == []
    await register(bed, HOURLY)
    found = await registrations.read(QUEUE)
    assert found is not None
    assert (found.worker, found.version, found.time_ms) == ("w", "1", 1)
    assert (dict(found.jobs), list(found.crons)) == ({"report": None}, [HOURLY])
    assert found.fingerprint == CodeSet({"report": None}, [HOURLY]).fingerprint
    assert await registrations.job_names(QUEUE) == ["report"]
    assert await bed.client.queues() == [QUEUE]


async def test_a_registration_can_be_restored_without_a_worker(bed: Bed) -> None:
    await register(bed, HOURLY)
    kept = await Registrations(bed.server).read(QUEUE)
    assert kept is not None
    await register(bed)
    assert await bed.waiting() == []
    await bed.schedules.restore(QUEUE, kept.text)
    assert await Registrations(bed.server).read(QUEUE) == kept
    assert [state.schedule for state in await bed.schedules.read(QUEUE)] == [HOURLY]
    with pytest.raises(UsageError, match="the registration can't be read"):
        await bed.schedules.restore(QUEUE, b"{}")


# --- the chain


async def test_a_cancelled_tick_is_followed_by_the_next_one(bed: Bed) -> None:
    await bed.put(HOURLY)
    first = await bed.next_due()
    await bed.client.cancel(tick_id(QUEUE, "hourly", first))
    assert await bed.waiting() == ticks(first + HOUR_MS)
    assert (await bed.state()).started == 0


async def test_a_tick_that_dies_and_is_replayed_or_discarded_does_not_disturb_the_chain(bed: Bed) -> None:
    await bed.put(HOURLY)
    first = await bed.advance_to_next()
    await bed.raw.add_dead_letter(await bed.raw.claim_one())
    assert await bed.waiting() == ticks(first + HOUR_MS)
    await bed.client.replay(QUEUE, all=True)
    assert await bed.run_due() == [first]
    second = await bed.advance_to_next()
    await bed.raw.add_dead_letter(await bed.raw.claim_one())
    await bed.client.discard(QUEUE, all=True)
    await bed.keep_house()
    assert await bed.waiting() == ticks(second + HOUR_MS)


@pytest.mark.parametrize("due", [False, True], ids=["before-it-is-due", "when-it-is-due"])
async def test_housekeeping_repairs_a_tick_that_another_program_has_removed(bed: Bed, due: bool) -> None:
    await bed.put(HOURLY)
    first = await (bed.advance_to_next() if due else bed.next_due())
    (waiting,) = await bed.waiting()
    await bed.server.redis.zrem(QUEUE, waiting)
    await bed.keep_house()
    assert await bed.waiting() == ticks(first + HOUR_MS if due else first)


async def test_housekeeping_computes_due_times_for_a_schedule_that_has_none_ahead(bed: Bed) -> None:
    await bed.put(HOURLY)
    await awaited(bed.server.redis.hdel(KeySpace(QUEUE).ticks, "next:hourly", "past:hourly"))
    await bed.server.redis.delete(QUEUE)
    await bed.keep_house()
    assert len(await bed.waiting()) == 1


async def test_a_tick_whose_schedule_cant_be_read_runs(bed: Bed) -> None:
    await bed.put(HOURLY)
    first = await bed.advance_to_next()
    keys = KeySpace(QUEUE)
    await bed.server.redis.delete(keys.ticks)
    await bed.server.redis.set(keys.ticks, "another program's")
    job = await bed.raw.claim_one()
    await bed.raw.complete(job)
    assert decode_job(job.record or b"").tick == ("hourly", first)
    await bed.server.redis.delete(keys.ticks)
    await bed.keep_house()
    assert len(await bed.waiting()) == 1


async def test_a_lost_reply_of_a_claim_starts_no_second_tick(bed: Bed) -> None:
    await bed.put(HOURLY)
    first = await bed.advance_to_next()
    claims = [await bed.raw.engine.finish_and_claim(seq=1, owner="hand/1", want=5) for _ in range(2)]
    assert [[job.id for job in reply.claimed] for reply in claims] == [ticks(first)] * 2
    assert claims[1].repeated
    assert await bed.waiting() == ticks(first, first + HOUR_MS)
    assert (await bed.state()).started == 1


async def test_ticks_of_a_paused_queue_are_missed_ones(bed: Bed) -> None:
    await bed.put(HOURLY)
    await bed.client.pause(QUEUE)
    first = await bed.advance_to_next(late_ms=2 * HOUR_MS + 5)
    assert await bed.run_due() == []
    await bed.client.resume(QUEUE)
    assert await bed.run_due() == [first + 2 * HOUR_MS]


# --- people


async def test_a_schedule_is_listed_with_its_next_time_and_its_last_run(bed: Bed) -> None:
    await bed.put(HOURLY)
    (listed,) = await bed.client.schedules(QUEUE)
    assert (listed.name, listed.job, listed.missed, listed.source, listed.last) == (
        "hourly",
        "report",
        "one",
        "resource",
        None,
    )
    first = await bed.advance_to_next()
    job = await bed.raw.claim_one()
    (listed,) = await bed.client.schedules(QUEUE)
    assert listed.last is not None
    assert (listed.last.id, listed.last.state) == (job.id, "active")
    assert listed.last.scheduled_for == from_ms(first)
    await bed.raw.complete(job)
    await bed.schedules.note_end(QUEUE, "hourly", job.id, "completed", first + 60_000)
    (listed,) = await bed.client.schedules(QUEUE)
    assert listed.last is not None
    assert (listed.last.state, listed.last.ended_at) == ("completed", from_ms(first + 60_000))
    assert listed.next_at == from_ms(first + HOUR_MS)


async def test_a_schedule_runs_now_beside_its_ticks(bed: Bed) -> None:
    await bed.put(Schedule("hourly", cron="0 * * * *", job="report", data={"day": 1}))
    due = await bed.next_due()
    job = await bed.client.run_schedule(QUEUE, "hourly")
    status = await job.status()
    assert (status.name, status.data, status.schedule) == ("report", {"day": 1}, "hourly")
    assert len(await bed.run_due()) == 1
    assert await bed.waiting() == ticks(due)
    (listed,) = await bed.client.schedules(QUEUE)
    assert listed.last is not None
    assert (listed.last.id, listed.started) == (job.id, 0)


@pytest.mark.parametrize("call", ["run_schedule", "pause_schedule", "resume_schedule"])
async def test_an_unknown_schedule_is_refused_with_those_that_are_there(bed: Bed, call: str) -> None:
    await bed.put(HOURLY)
    with pytest.raises(NotFound, match="queue 'reports' has no schedule 'nightly'; it has hourly"):
        await getattr(bed.client, call)(QUEUE, "nightly")
