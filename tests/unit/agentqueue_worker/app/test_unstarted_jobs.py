"""Claimed jobs that have not started: when they start, and when they go back."""

from typing import Any
from unittest.mock import AsyncMock, Mock

import pytest

from agentqueue.clock import monotonic
from agentqueue.keys import Level
from agentqueue.model.outcomes import RUNS_ALONE, SUSPECT_FIELD, Claimed, Unstarted
from agentqueue.store import Engine, EngineSettings, FinishAndClaimReply
from agentqueue_worker.app.job import RunningJob
from agentqueue_worker.app.options import Identity, WorkerOptions
from agentqueue_worker.app.progress_writer import ProgressWriter
from agentqueue_worker.app.runner import Runner
from agentqueue_worker.app.state import WorkerState
from agentqueue_worker.app.unstarted_jobs import UnstartedJobs
from agentqueue_worker.domain.claim_size import STALE_AFTER_S, STALE_MEAN_S

WAITS = {SUSPECT_FIELD: b"waits"}
ALONE = {SUSPECT_FIELD: RUNS_ALONE.encode()}


def job(job_id: str, meta: dict[str, bytes] | None = None, level: Level = Level.NORMAL) -> Claimed:
    return Claimed(job_id, level, 1.0, b"{}", 0, meta or {}, cancel=False)


class World:
    """A worker with a runner whose jobs never end."""

    def __init__(self, concurrency: int = 2, **engine: Any) -> None:
        self.annotate = AsyncMock(return_value=True)
        self.engine = Mock(spec=Engine, annotate=self.annotate)
        options = WorkerOptions("q", Identity("w", "1"), concurrency=concurrency, engine=EngineSettings(**engine))
        self.state = WorkerState(options, ProgressWriter(self.engine, "w/1"))
        self.lost: list[str] = []
        runner = Mock(spec=Runner, start=self.start, lose=lambda run: self.lost.append(run.id))
        self.jobs = UnstartedJobs(self.engine, self.state, runner)

    def start(self, claimed: Claimed) -> None:
        self.state.running[claimed.id] = Mock(spec=RunningJob, id=claimed.id, claimed=claimed)

    def take(self, *jobs: Claimed, now: float | None = None, aged: int = 0) -> None:
        reply = FinishAndClaimReply(
            [], jobs, [], paused=False, retry_after_ms=None, next_due_ms=None, now_ms=1, repeated=False, aged=aged
        )
        self.jobs.take(reply, monotonic() if now is None else now)

    def unstarted(self) -> list[str]:
        return [claimed.id for claimed in self.state.unstarted()]


async def test_jobs_beyond_the_slots_start_when_slots_become_free() -> None:
    world = World()
    world.take(job("a"), job("b"), job("c"))
    world.jobs.start()
    assert (sorted(world.state.running), world.unstarted()) == (["a", "b"], ["c"])
    del world.state.running["a"]
    world.jobs.start()
    assert (sorted(world.state.running), world.unstarted()) == (["b", "c"], [])


async def test_an_urgent_job_passes_those_that_wait_but_none_of_a_claim_with_old_jobs() -> None:
    world = World()
    world.take(job("a"), job("b"))
    world.take(job("u", level=Level.URGENT))
    assert world.unstarted() == ["u", "a", "b"]
    world = World()
    world.take(job("a"), job("old", level=Level.LOW), aged=1)
    world.take(job("u", level=Level.URGENT))
    assert world.unstarted() == ["a", "old", "u"]


async def test_a_job_that_waits_for_a_slot_is_not_busy_unless_the_worker_is_to_be_removed() -> None:
    world = World()
    world.take(job("a"), job("b"), job("c"))
    assert world.state.busy == 2, "those that fit the slots are busy before they start"
    world.jobs.start()
    assert world.state.busy == 2
    world.state.drain_requested_ms = 1
    assert world.state.busy == 3


async def test_jobs_go_back_uncounted_if_no_slot_becomes_free() -> None:
    world = World(1)
    world.take(job("a"), job("b"), job("c"), now=100.0)
    world.start(world.state.claimed.popleft())
    assert not world.jobs.put_back_stale(100.0)
    assert world.jobs.put_back_stale(100.0 + STALE_AFTER_S)
    assert (world.unstarted(), world.state.started, world.state.mean_seconds) == ([], 1, STALE_MEAN_S)
    outcomes = world.state.outbox.take(0.0).outcomes
    assert outcomes == [Unstarted("b", Level.NORMAL), Unstarted("c", Level.NORMAL)]


async def test_jobs_do_not_go_back_while_a_slot_is_free_for_them() -> None:
    world = World()
    world.take(job("a"), now=100.0)
    assert not world.jobs.put_back_stale(200.0)
    assert world.unstarted() == ["a"]


async def test_a_suspect_is_set_apart_and_nothing_is_claimed_while_it_is_there() -> None:
    world = World()
    world.state.renewed_at = monotonic()
    assert world.state.want == 2
    world.take(job("a"), job("s", WAITS))
    assert (world.state.suspect is not None, world.state.want, world.unstarted()) == (True, 0, ["a", "s"])
    assert not world.state.suspect_waits, "a job is left to end before"
    world.jobs.start()
    assert not world.state.suspect_waits
    del world.state.running["a"]
    assert world.state.suspect_waits


@pytest.mark.parametrize(
    ("meta", "draining", "annotated"), [(WAITS, False, True), (ALONE, False, False), (WAITS, True, False)]
)
async def test_a_suspect_that_waited_is_noted_as_running_before_it_starts(
    meta: dict[str, bytes], draining: bool, annotated: bool
) -> None:
    world = World()
    world.take(job("s", meta))
    world.state.draining = draining
    await world.jobs.start_suspect()
    assert (list(world.state.running), world.state.suspect_waits) == (["s"], False)
    assert world.annotate.called is annotated


async def test_a_suspect_whose_lease_was_lost_does_not_start() -> None:
    world = World()
    world.annotate.return_value = False
    world.take(job("s", WAITS))
    await world.jobs.start_suspect()
    await world.jobs.start_suspect()  # there is none any more
    assert (world.state.running, world.state.suspect, len(world.state.leases)) == ({}, None, 0)


async def test_a_job_whose_lease_was_lost_before_it_started_is_dropped() -> None:
    world = World(1)
    world.take(job("a"), job("b"))
    world.state.lose("b")
    assert (world.unstarted(), len(world.state.leases)) == (["a"], 1)


async def test_a_job_that_comes_back_to_its_own_worker_ends_the_run_that_lost_its_lease() -> None:
    world = World()
    world.take(job("a"))
    world.jobs.start()
    world.take(job("a"))
    assert world.lost == ["a"]


async def test_a_job_that_is_cancelled_before_it_starts_is_marked() -> None:
    world = World(1)
    world.take(job("a"), job("b"), job("s", WAITS))
    world.jobs.cancel(["b", "s"])
    assert [claimed.cancel for claimed in world.state.unstarted()] == [False, True, True]
    world.jobs.cancel([])


async def test_nothing_is_held_ahead_with_a_rate_limit_or_while_a_thread_runs_on() -> None:
    for world, ahead in ((World(), 9), (World(rate_max=5), 0)):
        world.state.mean_seconds, world.state.round_trip_seconds = 0.0001, 0.0003
        assert world.state.ahead == ahead
        world.state.orphaned_threads = 1
        assert world.state.ahead == 0
