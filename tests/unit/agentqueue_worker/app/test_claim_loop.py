"""The claim loop beside a stand-in for Redis: what is asked when."""

import asyncio
from collections.abc import Callable, Sequence
from unittest.mock import Mock

from agentqueue.clock import monotonic
from agentqueue.keys import Level
from agentqueue.model.job import JobRecord, encode_job
from agentqueue.model.outcomes import Claimed, Outcome, Released
from agentqueue.store import Engine, FinishAndClaimReply
from agentqueue_worker.app.claim_loop import ClaimLoop
from agentqueue_worker.app.job import RunningJob
from agentqueue_worker.app.options import Identity, WorkerOptions
from agentqueue_worker.app.ports import Registry
from agentqueue_worker.app.progress_writer import ProgressWriter
from agentqueue_worker.app.runner import Runner
from agentqueue_worker.app.state import WorkerState
from agentqueue_worker.app.telemetry import Telemetry
from agentqueue_worker.domain.priority_ageing import STARTS_PER_AGED
from tests.support.workers import until

RECORD = encode_job(JobRecord("job", enqueued_ms=1))
SLOTS = 40
HALF = SLOTS // 2
"""Jobs that a round trip claims if there are many slots."""


class Queue(Engine):
    """An engine with jobs in it; `asked` is called with each round trip before its answer is there."""

    def __init__(self, jobs: int, asked: Callable[[], None]) -> None:
        self.left = jobs
        self.asked = asked
        self.age_credits: list[int] = []
        self.retry_after_ms: int | None = None

    async def finish_and_claim(
        self,
        *,
        seq: int,
        owner: str,
        want: int,
        age_credit: int = 0,
        free: int | None = None,
        is_idle: bool = False,
        outcomes: Sequence[Outcome] = (),
        watch: Sequence[str] = (),
    ) -> FinishAndClaimReply:
        self.asked()
        self.age_credits.append(age_credit)
        await asyncio.sleep(0)
        ids = range(self.left, self.left - min(want, self.left), -1)
        self.left -= len(ids)
        claimed = [Claimed(str(n), Level.NORMAL, 1.0, RECORD, 0, {}, cancel=False) for n in ids]
        return FinishAndClaimReply(
            [],
            claimed,
            [],
            paused=False,
            retry_after_ms=self.retry_after_ms,
            next_due_ms=None,
            now_ms=1,
            repeated=False,
        )


class World:
    """A loop in burst mode with a runner that only records started jobs."""

    def __init__(self, jobs: int, asked: Callable[[], None] = lambda: None) -> None:
        self.queue = Queue(jobs, asked)
        options = WorkerOptions("q", Identity("w", "1"), concurrency=SLOTS, burst=True)
        self.state = WorkerState(options, ProgressWriter(self.queue, "w/1"))
        self.started: list[str] = []
        runner = Mock(spec=Runner, unrecorded={}, start=self.start)
        self.loop = ClaimLoop(self.queue, self.state, runner, Mock(spec=Registry), Mock(spec=Telemetry))

    def start(self, claimed: Claimed) -> None:
        """Never ends: its slot stays taken."""
        self.started.append(claimed.id)
        self.state.running[claimed.id] = Mock(spec=RunningJob)


async def run(world: World, jobs: int) -> "asyncio.Task[None]":
    """Run the loop until that number of jobs has started."""
    running = asyncio.create_task(world.loop.run())
    await until(lambda: len(world.started) == jobs, what=f"{jobs} jobs have started")
    return running


async def test_the_next_round_trip_is_on_its_way_before_the_jobs_of_the_last_one_start() -> None:
    """So the server works while they run."""
    started: list[int] = []
    world = World(SLOTS, lambda: started.append(len(world.started)))
    (await run(world, SLOTS)).cancel()
    assert started == [0, 0]


async def test_what_is_claimed_takes_its_slot_and_counts_as_busy_before_it_starts() -> None:
    """A worker that is asked in between must not call itself idle: its pod would go."""
    seen: list[tuple[int, int]] = []
    world = World(SLOTS, lambda: seen.append((world.state.free, world.state.busy)))
    (await run(world, SLOTS)).cancel()
    assert seen == [(SLOTS, 0), (SLOTS - HALF, HALF)]


async def test_a_burst_is_not_over_while_claimed_jobs_have_not_started() -> None:
    world = World(3)  # fewer than wanted: the queue is dry with the very round trip that brought them
    running = await run(world, 3)
    assert not running.done()
    running.cancel()


async def test_an_interval_is_over_with_its_timer_which_may_be_early_by_half_a_millisecond() -> None:
    world = World(0)
    loop, state = world.loop, world.state
    state.claimed.append(Claimed("ahead", Level.NORMAL, 1.0, RECORD, 0, {}, cancel=False))
    state.outbox.add(Released("ended", Level.NORMAL))
    loop._poll_at = float("inf")
    loop._hold_until = monotonic() + 60
    assert not loop._is_due(monotonic())
    loop._end_hold()
    assert loop._is_due(monotonic())


async def test_claims_by_age_are_left_out_after_a_claim_that_has_left_no_job() -> None:
    world = World(HALF + 1)
    running = await run(world, HALF + 1)
    await until(lambda: len(world.queue.age_credits) >= 3, what="the worker polls")
    running.cancel()
    assert world.queue.age_credits[:3] == [0, STARTS_PER_AGED, -(HALF - 1)]


async def test_claims_by_age_go_on_under_a_rate_limit() -> None:
    """A claim that the limit has cut short may have left jobs."""
    world = World(3)
    world.queue.retry_after_ms = 1
    running = await run(world, 3)
    await until(lambda: len(world.queue.age_credits) >= 2, what="the worker claims again")
    running.cancel()
    assert world.queue.age_credits[:2] == [0, 3]
