"""The runner and the drain beside a stand-in for Redis: what must not happen, and what happens rarely."""

import asyncio
import errno
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import pytest

from agentqueue.errors import QueueUnavailable
from agentqueue.keys import Level
from agentqueue.model.attempts import AttemptError, Progress
from agentqueue.model.job import JobRecord, decode_job, encode_job
from agentqueue.model.new_job import NewJob
from agentqueue.model.outcomes import Claimed, Completed, DeadLettered, Outcome, Released, Rescheduled, Unstarted
from agentqueue.model.result import ResultRecord, encode_result
from agentqueue.model.retry_policy import Backoff
from agentqueue.store import CodeSet, Engine
from agentqueue_worker.app.drain import Drain
from agentqueue_worker.app.job import Ending, RunningJob
from agentqueue_worker.app.options import Identity, WorkerOptions
from agentqueue_worker.app.ports import Cron, WorkerRuntime
from agentqueue_worker.app.progress_writer import ProgressWriter
from agentqueue_worker.app.runner import Runner, parse_backoff
from agentqueue_worker.app.state import WorkerState
from agentqueue_worker.domain.verdict import CancelledOnRequest, Failed, Snoozed, Verdict, Yielded
from tests.support.workers import until


class FakeEngine(Engine):
    """Records annotations, unless it is unavailable or another worker holds the job."""

    def __init__(self) -> None:
        self.away = False
        self.held = True
        self.notes: list[Mapping[str, bytes | str | int]] = []

    async def annotate(self, *, owner: str, job_id: str, notes: Mapping[str, bytes | str | int]) -> bool:
        if self.away:
            raise QueueUnavailable("no answer")
        self.notes.append(notes)
        return self.held


class FakeHandler:
    name = "job"
    timeout: float | None = None
    attempts = 3
    backoff = Backoff("fixed", delay=1, jitter=0)
    keep_ms = 1_000

    def __init__(self, body: Callable[[RunningJob], Awaitable[Any]], verdict: Verdict | Exception = Failed()) -> None:  # noqa: B008
        self.body = body
        self.verdict = verdict

    def call(self, job: RunningJob) -> Awaitable[Any]:
        return self.body(job)

    def judge(self, exc: BaseException, job: RunningJob) -> Verdict:
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


class FakeRegistry:
    """One handler for every name; results that are the word `unwritable` can't be written, nor can cancellations."""

    crons: Sequence[Cron] = ()
    code = CodeSet()
    names, unknown_grace_ms, cancellable, wants_recorded = ("job",), 60_000, True, False

    def __init__(self, handler: FakeHandler) -> None:
        self.handler = handler

    @property
    def codec(self) -> "FakeRegistry":
        return self

    async def start(self, runtime: WorkerRuntime) -> None:
        raise AssertionError("a runner starts no registry")

    async def stop(self) -> None:
        raise AssertionError("a runner stops no registry")

    async def on_recorded(self, job: RunningJob) -> None:
        raise AssertionError("it does not want to know")

    def find(self, name: str) -> FakeHandler | None:
        return self.handler if name == "job" else None

    def decode_job(self, raw: bytes) -> JobRecord:
        return decode_job(raw)

    def encode_completed(self, job: RunningJob, value: object, *, queue: str, worker: str) -> None:
        """Leave every result to `encode_result`."""

    def encode_result(self, record: ResultRecord) -> bytes:
        if not record.success and record.state == "cancelled":
            raise RuntimeError("a codec's bug")
        return encode_result(record)


class World:
    """A runner with all that it needs."""

    def __init__(self, body: Callable[[RunningJob], Awaitable[Any]], verdict: Verdict | Exception = Failed()) -> None:  # noqa: B008
        self.engine = FakeEngine()
        options = WorkerOptions("q", Identity("w", "1"), grace=0.2, drain_margin=0.1)
        self.progress_writer = ProgressWriter(self.engine, "w/1")
        self.state = WorkerState(options, self.progress_writer)
        self.ended: list[tuple[str, Outcome | None, AttemptError | None]] = []
        self.handler = FakeHandler(body, verdict)
        self.runner = Runner(self.state, FakeRegistry(self.handler), ended=self.note)

    def note(self, job: RunningJob, outcome: Outcome | None, seconds: float, error: AttemptError | None) -> None:
        self.ended.append((job.id, outcome, error))

    def start(self, job_id: str = "j", **fields: Any) -> Claimed:
        record = encode_job(JobRecord("job", enqueued_ms=1))
        base: dict[str, Any] = {"level": Level.NORMAL, "score": 1.0, "record": record, "attempts": 0, "meta": {}}
        claimed = Claimed(job_id, **({"cancel": False} | base | fields))
        self.runner.start(claimed)
        return claimed

    async def outcome(self) -> Outcome:
        """The next one, once it is there."""
        await until(lambda: self.state.outbox, what="a job has ended")
        (outcome,) = self.state.outbox.take(0).outcomes
        return outcome


async def forever(job: RunningJob) -> None:
    await asyncio.Event().wait()


async def fail(job: RunningJob) -> None:
    raise ValueError("no")


async def test_a_registry_that_cant_judge_costs_an_attempt_and_no_slot() -> None:
    world = World(fail, RuntimeError("a registry's bug"))
    world.start()
    assert isinstance(await world.outcome(), Rescheduled)
    assert world.state.running == {}


async def test_an_outcome_that_cant_be_made_hands_the_job_back() -> None:
    world = World(fail, CancelledOnRequest())
    world.start()
    outcome = await world.outcome()
    assert outcome == Released("j", Level.NORMAL, 5_000)
    error = world.ended[-1][2]
    assert error is not None
    assert "record could not be made: RuntimeError: a codec's bug" in error.line


async def test_a_job_that_cant_be_started_goes_back_and_takes_no_other_with_it() -> None:
    world = World(forever)
    world.start("bad", cancel=True)  # its cancellation can't be written
    world.start("good")
    assert await world.outcome() == Released("bad", Level.NORMAL, 5_000)
    assert [*world.state.running] == ["good"]


async def test_an_outcome_is_recorded_even_if_its_log_line_fails() -> None:
    world = World(fail, Yielded())

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    world.runner._ended = full  # a log on a full disk
    world.start()
    assert await world.outcome() == Released("j", Level.NORMAL)


async def test_a_job_that_yields_goes_back_after_its_own_delay() -> None:
    world = World(fail, Yielded(after=2.5))
    world.start()
    assert await world.outcome() == Released("j", Level.NORMAL, 2_500)


async def test_a_job_that_snoozes_goes_back_without_an_attempt_and_is_counted() -> None:
    world = World(fail, Snoozed(2.5, "busy"))
    world.start(meta={"snoozes": b"2"})
    assert await world.outcome() == Released("j", Level.NORMAL, 2_500, {"snoozes": 3, "snooze": "busy"})
    assert world.ended[-1][2] is None


async def test_a_job_claimed_by_a_round_trip_that_was_under_way_at_the_signal_goes_back_unrun() -> None:
    world = World(forever)
    world.state.draining = True
    world.start()
    assert await world.outcome() == Unstarted("j", Level.NORMAL)
    assert world.ended == []


async def test_a_job_that_comes_back_to_its_own_worker_replaces_the_run_that_lost_its_lease() -> None:
    runs: list[asyncio.Event] = []

    async def wait(job: RunningJob) -> int:
        runs.append(asyncio.Event())
        number = len(runs)
        await runs[-1].wait()
        return number

    world = World(wait)
    world.start()
    first = world.state.running["j"]
    await asyncio.sleep(0)
    world.start(attempts=0, meta={"crashes": b"1"})
    await asyncio.sleep(0.01)
    assert world.ended == [("j", None, None)]
    assert first.task is not None
    assert first.task.done()
    runs[-1].set()
    outcome = await world.outcome()
    assert isinstance(outcome, Completed)
    assert b'"r":2' in outcome.result


async def test_a_job_stopped_before_it_first_ran_still_has_an_outcome() -> None:
    world = World(forever)
    world.start()
    world.runner.stop(world.state.running["j"], Ending.DRAIN)
    assert await world.outcome() == Released("j", Level.NORMAL)


async def test_the_first_reason_to_stop_a_job_counts() -> None:
    world = World(forever)
    world.start()
    job = world.state.running["j"]
    await asyncio.sleep(0)
    world.runner.stop(job, Ending.TIMEOUT)
    world.runner.stop(job, Ending.DRAIN)
    outcome = await world.outcome()
    assert isinstance(outcome, Rescheduled)
    errors = outcome.notes["errors"]
    assert isinstance(errors, bytes)
    assert b"TimeoutError" in errors


async def test_a_handler_that_swallows_its_cancellation_is_cancelled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentqueue_worker.app.runner.CANCEL_AGAIN_AFTER_S", 0.02)
    cancelled: list[int] = []

    async def stubborn(job: RunningJob) -> None:
        while len(cancelled) < 3:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled.append(1)
        raise ValueError("enough")

    world = World(stubborn)
    world.handler.timeout = 0.01
    world.start()
    assert isinstance(await world.outcome(), Rescheduled)
    assert len(cancelled) == 3


async def test_a_checkpoint_that_redis_did_not_take_is_recorded_with_the_outcome() -> None:
    async def note(job: RunningJob) -> None:
        with pytest.raises(QueueUnavailable):
            await world.state.checkpoint(job.id, b"1", strict=True)
        raise ValueError("no")

    world = World(note)
    world.engine.away = True
    world.start()
    outcome = await world.outcome()
    assert isinstance(outcome, Rescheduled)
    assert outcome.notes["checkpoint"] == b"1"


async def test_progress_that_redis_did_not_take_is_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentqueue_worker.app.progress_writer.WRITE_INTERVAL_S", 0.01)
    world = World(forever)
    world.engine.away = True
    world.start()
    writing = asyncio.create_task(world.progress_writer.run())
    world.state.progress("j", Progress(50))
    await asyncio.sleep(0.03)
    world.engine.away = False
    await until(lambda: world.engine.notes, what="it is written")
    assert list(world.engine.notes[0]) == ["progress"]
    assert world.state.running["j"].unsaved == {}
    writing.cancel()


async def test_a_checkpoint_is_kept_when_its_call_returns_although_redis_was_unavailable() -> None:
    world = World(forever)
    world.engine.away = True
    world.start()
    keeping = asyncio.create_task(world.state.checkpoint("j", b"1", strict=False))
    await asyncio.sleep(0.02)
    assert not keeping.done()
    world.engine.away = False
    await keeping
    assert world.engine.notes == [{"checkpoint": b"1"}]


async def test_a_new_checkpoint_is_progress_that_attempts_and_crashes_before_it_do_not_count_against() -> None:
    world = World(forever)
    world.start(attempts=2, meta={"crashes": b"1", "checkpoint": b"1"})
    await world.state.checkpoint("j", b"1", strict=False)
    await world.state.checkpoint("j", b"2", strict=False)
    await world.state.checkpoint("j", b"3", strict=False)
    assert world.engine.notes == [
        {"checkpoint": b"1"},
        {"checkpoint": b"2", "past_attempts": b"2", "past_crashes": b"1"},
        {"checkpoint": b"3"},
    ]
    assert world.state.running["j"].past_attempts == 2


async def test_a_checkpoint_of_a_job_that_has_ended_is_dropped() -> None:
    world = World(forever)
    await world.state.checkpoint("gone", b"1", strict=False)
    assert world.engine.notes == []


async def test_a_lost_lease_that_a_checkpoint_reveals_stops_the_job() -> None:
    world = World(forever)
    world.engine.held = False
    world.start()
    await asyncio.sleep(0)
    await world.state.checkpoint("j", b"1", strict=False)
    assert world.ended == [("j", None, None)]
    assert len(world.state.leases) == 0


def test_a_backoff_that_cant_be_read_is_the_handlers() -> None:
    base = Backoff("fixed", delay=9)
    assert [parse_backoff(wire, base) for wire in ({"x": 1}, "5", {"delaySeconds": "soon"}, {"type": 1})] == [base] * 4


# --- drain


async def test_a_drain_stops_then_abandons_then_gives_up() -> None:
    swallowed = []

    async def stubborn(job: RunningJob) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                swallowed.append(job.id)
                if job.id == "gives-in":
                    raise
                if len(swallowed) > 10:
                    return

    world = World(stubborn)
    began: list[bool] = []
    drain = Drain(world.state, world.runner, began=lambda: began.append(True))
    for name in ("stays", "gives-in"):
        world.start(name)
    await asyncio.sleep(0)
    world.state.outbox.add(Completed("parent", Level.NORMAL, b"", 0, 1, [NewJob("c", "child", b"")]))
    world.state.outbox.refused(world.state.outbox.take(0), retry_at=1e12)
    drain.begin()
    assert (began, world.state.draining, world.state.want) == ([True], True, 0)
    await asyncio.wait_for(drain.run(), 5)
    outcomes = {outcome.id: outcome for outcome in world.state.outbox.take(0).outcomes}
    assert outcomes == {name: Released(name, Level.NORMAL) for name in ("gives-in", "stays", "parent")}
    assert len(world.state.orphaned_tasks) == 1
    orphan = next(iter(world.state.orphaned_tasks))
    for _ in range(12):
        orphan.cancel()
        await asyncio.sleep(0)
    assert world.state.orphaned_tasks == set()


async def test_a_second_signal_stops_jobs_now() -> None:
    world = World(forever)
    drain = Drain(world.state, world.runner, began=lambda: None)
    world.start()
    await asyncio.sleep(0)
    drain.begin(grace=3_600)
    running = asyncio.create_task(drain.run())
    await asyncio.sleep(0.01)
    assert world.state.running
    drain.begin()
    assert await world.outcome() == Released("j", Level.NORMAL)
    running.cancel()


# --- state


async def test_an_exception_of_a_spawned_hook_is_logged_and_ends_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    world = World(forever)

    async def broken() -> None:
        raise RuntimeError("a hook's bug")

    world.state.spawn(broken())
    await world.state.settle()
    assert "hook_failed" in capsys.readouterr().out


async def test_an_outcomes_kind_follows_from_how_the_job_ended() -> None:
    async def returns(job: RunningJob) -> int:
        return 1

    world = World(returns)
    world.start()
    assert isinstance(await world.outcome(), Completed)
    last = World(fail)
    last.start(attempts=2)
    outcome = await last.outcome()
    assert type(outcome) is DeadLettered
