"""Intended differences from arq, which docs/migrate-from-arq.md lists."""

import asyncio
import functools
import signal
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from arq import Retry, cron, func
from arq.connections import ArqRedis
from arq.jobs import DeserializationError, Job
from arq.worker import JobExecutionFailed
from structlog.testing import capture_logs

from agentqueue import Snooze
from agentqueue.arq import loads
from agentqueue.client import Client
from agentqueue.model.dead_letter import DeadLetterReason, decode_dead_letter
from agentqueue.model.job import State
from agentqueue_worker.arq import Worker
from tests.support.arq_programs import JSON, PICKLE, QUEUE, arq_client, running, settings_of
from tests.support.replies import field
from tests.support.workers import until

MakeWorker = Callable[..., Any]


@pytest.fixture
def make_worker(server_url: str) -> MakeWorker:
    return functools.partial(
        Worker, redis_settings=settings_of(server_url), poll_delay=0.02, handle_signals=False, burst=True
    )


@pytest.fixture
async def redis(server_url: str) -> AsyncIterator[ArqRedis]:
    async with arq_client(server_url) as pool:
        yield pool


async def burst(worker: Any) -> Any:
    try:
        await worker.async_run()
    finally:
        await worker.close()
    return worker


async def dead_letter_of(redis: ArqRedis, job_id: str) -> Any:
    raw = await field(redis, f"aq:dead:{job_id}", "dead_letter")
    assert raw is not None, f"{job_id} is no dead letter"
    return decode_dead_letter(raw)


async def add(ctx: dict[str, Any], one: int, two: int = 0) -> int:
    return one + two


async def fail(ctx: dict[str, Any], *args: Any) -> None:
    raise ValueError(*args)


# --- Snooze of AgentQueue -------------------------------------------------------------------------------------------


async def test_a_snooze_takes_no_try_and_ends_when_the_job_expires(make_worker: MakeWorker, redis: ArqRedis) -> None:
    starts: list[int] = []

    async def busy(ctx: dict[str, Any]) -> int:
        starts.append(ctx["job_try"])
        if len(starts) < 3:
            raise Snooze(after=0.1)
        return len(starts)

    async def always_busy(ctx: dict[str, Any]) -> None:
        raise Snooze(after=3_600)

    job = await redis.enqueue_job("busy")
    late = await redis.enqueue_job("always_busy", _expires=0.3)
    assert job is not None
    assert late is not None
    worker = await burst(make_worker([func(busy, name="busy", max_tries=1), func(always_busy, name="always_busy")]))
    assert await job.result(timeout=5) == 3
    assert starts == [1, 1, 1]
    assert worker.jobs_retried == 3
    with pytest.raises(JobExecutionFailed, match="job expired"):
        await late.result(timeout=5)


# --- JSON is the default -------------------------------------------------------------------------------------------


async def test_a_pickled_record_is_a_dead_letter_that_says_how_to_have_it_read(
    make_worker: MakeWorker, server_url: str
) -> None:
    async with arq_client(server_url, job_serializer=None, job_deserializer=None) as client:
        job = await client.enqueue_job("add", 1)
        assert job is not None
        worker = await burst(make_worker([add]))
        assert (worker.jobs_complete, worker.jobs_failed) == (0, 1)
        letter = await dead_letter_of(client, job.job_id)
    assert letter.reason is DeadLetterReason.PICKLED
    for option in ("--arq-pickle", "pickle=True", "job_deserializer", "agentqueue.arq.dumps"):
        assert option in letter.error
    assert letter.replayable


async def test_a_pickled_dead_letter_runs_after_a_replay_to_a_worker_that_reads_it(
    make_worker: MakeWorker, server_url: str
) -> None:
    async with arq_client(server_url, **PICKLE) as client, Client(server_url) as own:
        job = await client.enqueue_job("add", 40, two=2)
        assert job is not None
        await burst(make_worker([add]))
        with pytest.raises(DeserializationError):  # the result with the reason was JSON
            await job.result(timeout=1)
        assert (await own.replay(QUEUE, [job.job_id])).count == 1
        await burst(make_worker([add], pickle=True))
        assert await job.result(timeout=5) == 42


async def test_pickle_true_is_arqs_default(make_worker: MakeWorker, server_url: str) -> None:
    async with arq_client(server_url, job_serializer=None, job_deserializer=None) as client:
        job = await client.enqueue_job("add", 1, two=1)
        assert job is not None
        await burst(make_worker([add], pickle=True))
        assert await job.result(timeout=5) == 2


async def test_a_record_that_does_not_unpickle_is_a_dead_letter_as_garbage(
    make_worker: MakeWorker, redis: ArqRedis
) -> None:
    await redis.set("arq:job:torn", PICKLE["job_serializer"]({"f": "add"})[:-3])
    await redis.zadd(QUEUE, {"torn": 1_700_000_000_000})
    await burst(make_worker([add], pickle=True))
    letter = await dead_letter_of(redis, "torn")
    assert letter.reason is DeadLetterReason.GARBAGE
    assert "job_deserializer refuses its record" in letter.error


async def test_a_pool_given_without_serializers_writes_what_the_worker_reads(
    make_worker: MakeWorker, server_url: str, redis: ArqRedis
) -> None:
    """arq's pool pickles by default: the jobs enqueued through ctx['redis'] would end as dead letters."""

    async def parent(ctx: dict[str, Any]) -> str:
        child: Job = await ctx["redis"].enqueue_job("add", 1)
        return child.job_id

    await redis.enqueue_job("parent", _job_id="parent")
    async with arq_client(server_url, job_serializer=None, job_deserializer=None) as pool:
        worker = await burst(make_worker([func(parent, name="parent"), add], redis_settings=None, redis_pool=pool))
        assert (worker.jobs_complete, worker.jobs_failed) == (2, 0)
        assert pool.job_serializer is None  # the user's own object is left as it was


async def test_the_pools_own_serializers_are_the_workers_unless_told_otherwise(
    make_worker: MakeWorker, server_url: str
) -> None:
    async with arq_client(server_url, **PICKLE) as pool:
        job = await pool.enqueue_job("add", 1)
        assert job is not None
        await burst(make_worker([add], redis_settings=None, redis_pool=pool))
        assert await job.result(timeout=5) == 1


async def test_our_clients_jobs_run_in_a_pickling_program_too(make_worker: MakeWorker, server_url: str) -> None:
    async def echo(ctx: dict[str, Any], payload: Any) -> Any:
        return payload

    async with Client(server_url) as client:
        job = await client.enqueue(QUEUE, "echo", {"to": "LIS"}, priority="high")
        worker = await burst(make_worker([func(echo, name="echo")], pickle=True))
        assert worker.jobs_complete == 1
        assert (await job.status()).state is State.COMPLETED


# --- dead letters --------------------------------------------------------------------------------------------------


async def test_a_failed_job_is_a_dead_letter_with_its_traceback(make_worker: MakeWorker, redis: ArqRedis) -> None:
    await redis.enqueue_job("fail", "no such airport", _job_id="bad")
    await burst(make_worker([fail]))
    letter = await dead_letter_of(redis, "bad")
    assert (letter.name, letter.data, letter.reason) == ("fail", "no such airport", DeadLetterReason.FATAL)
    assert letter.error == "ValueError: no such airport"
    assert "raise ValueError(*args)" in letter.errors[-1].traceback


async def test_a_failed_job_is_a_dead_letter_though_its_result_is_not_kept(
    make_worker: MakeWorker, redis: ArqRedis
) -> None:
    await redis.enqueue_job("fail", "x", _job_id="bad")
    await burst(make_worker([fail], keep_result=0))
    assert (await dead_letter_of(redis, "bad")).reason is DeadLetterReason.FATAL
    assert not await redis.exists("arq:result:bad")


@pytest.mark.parametrize("arguments", [({1, 2},), (object,)], ids=["set", "class"])
async def test_arguments_that_are_not_json_are_shown_in_the_dead_letter_as_text(
    make_worker: MakeWorker, server_url: str, arguments: Any
) -> None:
    async with arq_client(server_url, **PICKLE) as client:
        await client.enqueue_job("fail", *arguments, _job_id="bad")
        await burst(make_worker([fail], **PICKLE))
        assert (await dead_letter_of(client, "bad")).data == repr(arguments[0])


@pytest.mark.parametrize(
    ("enqueue", "reason", "text"),
    [
        pytest.param({"function": "ad"}, DeadLetterReason.UNKNOWN_JOB, "did you mean 'add'", id="unknown-function"),
        pytest.param({"function": "again"}, DeadLetterReason.FAILED, "max 5 retries exceeded", id="tries-used-up"),
    ],
)
async def test_dead_letters_say_why(
    make_worker: MakeWorker, redis: ArqRedis, enqueue: dict[str, Any], reason: DeadLetterReason, text: str
) -> None:
    async def again(ctx: dict[str, Any]) -> None:
        raise Retry

    await redis.enqueue_job(**enqueue, _job_id="bad")
    await burst(make_worker([add, func(again, name="again")]))
    letter = await dead_letter_of(redis, "bad")
    assert letter.reason is reason
    assert text in letter.error


async def test_an_expired_job_is_a_dead_letter(make_worker: MakeWorker, redis: ArqRedis) -> None:
    async def again(ctx: dict[str, Any]) -> None:
        raise Retry(defer=1)

    await redis.enqueue_job("again", _job_id="late", _expires=0.8)
    await burst(make_worker([func(again, name="again")]))
    letter = await dead_letter_of(redis, "late")
    assert letter.reason is DeadLetterReason.EXPIRED
    assert letter.replayable


# --- the last try, hooks, restarts ---------------------------------------------------------------------------------


async def test_the_last_retry_ends_the_job_at_once(make_worker: MakeWorker, redis: ArqRedis) -> None:
    """arq waits for `defer` once more, only to find the tries used up."""

    async def again(ctx: dict[str, Any]) -> None:
        raise Retry(defer=3_600)

    job = await redis.enqueue_job("again")
    assert job is not None
    await burst(make_worker([func(again, name="again")], max_tries=1))
    info = await job.result_info()
    assert info is not None
    assert (str(info.result), info.job_try) == ("max 1 retries exceeded", 1)


@pytest.mark.parametrize("hook", ["on_job_start", "on_job_end"])
async def test_a_hook_that_fails_fails_its_job_and_not_the_worker(
    make_worker: MakeWorker, redis: ArqRedis, hook: str
) -> None:
    async def broken(ctx: dict[str, Any]) -> None:
        if ctx["job_id"] == "first":
            raise RuntimeError("the hook broke")

    for job_id in ("first", "second"):
        await redis.enqueue_job("add", 1, _job_id=job_id)
    worker = await burst(make_worker([add], max_jobs=1, **{hook: broken}))
    assert (worker.jobs_complete, worker.jobs_failed) == (1, 1)
    assert "the hook broke" in (await dead_letter_of(redis, "first")).error


async def test_an_after_job_end_that_fails_leaves_job_and_worker_as_they_are(
    make_worker: MakeWorker, redis: ArqRedis
) -> None:
    async def broken(ctx: dict[str, Any]) -> None:
        raise RuntimeError("the hook broke")

    for job_id in ("first", "second"):
        await redis.enqueue_job("add", 1, _job_id=job_id)
    worker = await burst(make_worker([add], after_job_end=broken))
    assert (worker.jobs_complete, worker.jobs_failed) == (2, 0)


async def test_a_closed_worker_hands_back_what_it_runs_and_no_try_is_burnt(
    make_worker: MakeWorker, redis: ArqRedis
) -> None:
    """arq counts the interrupted run as a try."""
    started = asyncio.Event()
    tries: list[int] = []

    async def interrupted(ctx: dict[str, Any]) -> None:
        tries.append(ctx["job_try"])
        if len(tries) == 1:
            started.set()
            await asyncio.Event().wait()

    function = func(interrupted, name="interrupted")
    await redis.enqueue_job("interrupted", _job_id="one")
    async with running(make_worker([function], burst=False)):
        await asyncio.wait_for(started.wait(), 5)
    assert await redis.zscore(QUEUE, "one") is not None
    assert not await redis.exists("arq:in-progress:one")
    worker = await burst(make_worker([function]))
    assert (tries, worker.jobs_complete) == ([1, 1], 1)


async def test_a_cancelled_async_run_hands_back_too(make_worker: MakeWorker, redis: ArqRedis) -> None:
    started = asyncio.Event()

    async def endless(ctx: dict[str, Any]) -> None:
        started.set()
        await asyncio.Event().wait()

    await redis.enqueue_job("endless", _job_id="one")
    worker = make_worker([func(endless, name="endless")], burst=False)
    task = asyncio.create_task(worker.async_run())
    await asyncio.wait_for(started.wait(), 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await worker.close()
    assert await redis.zscore(QUEUE, "one") is not None
    assert not await redis.exists("arq:in-progress:one")


async def test_the_worker_can_be_run_again(make_worker: MakeWorker, redis: ArqRedis) -> None:
    worker = make_worker([add])
    for number in (1, 2):
        await redis.enqueue_job("add", number)
        assert await worker.run_check() == number
    await worker.close()


async def test_a_priority_job_is_found_by_its_levels_queue_name(
    make_worker: MakeWorker, server_url: str, redis: ArqRedis
) -> None:
    async with Client(server_url) as client:
        sent = await client.enqueue(QUEUE, "add", 7, priority="urgent")
        async with running(make_worker([add], burst=False)):
            await until(lambda: redis.exists(f"arq:result:{sent.id}"))
        assert await Job(sent.id, redis, f"{QUEUE}:urgent", loads).result(timeout=5) == 7


def test_the_json_pair_is_what_the_docs_name() -> None:
    assert {function.__module__ for function in JSON.values()} == {"agentqueue.arq"}


# --- signals, outages ------------------------------------------------------------------------------------------------


class Long:
    """A job that waits for a signal, and records if it was cancelled."""

    def __init__(self) -> None:
        self.started, self.open, self.cancelled = asyncio.Event(), asyncio.Event(), False

    @property
    def function(self) -> Any:
        async def long(ctx: dict[str, Any]) -> str:
            self.started.set()
            try:
                await self.open.wait()
            except asyncio.CancelledError:
                self.cancelled = True
                raise
            return "ended"

        return func(long, name="long")


async def test_a_signal_lets_jobs_end_within_job_completion_wait(make_worker: MakeWorker, redis: ArqRedis) -> None:
    long = Long()
    stopped_by: list[signal.Signals] = []
    worker = make_worker([long.function, add], burst=False, job_completion_wait=20)
    worker.on_stop = stopped_by.append
    job = await redis.enqueue_job("long")
    assert job is not None
    serving = asyncio.create_task(worker.async_run())
    await asyncio.wait_for(long.started.wait(), 5)
    worker.handle_sig(signal.SIGTERM)
    await redis.enqueue_job("add", 1, _job_id="too-late")
    long.open.set()
    await asyncio.wait_for(serving, 5)
    await worker.close()
    assert await job.result(timeout=5) == "ended"
    assert (stopped_by, worker.jobs_complete) == ([signal.SIGTERM], 1)
    assert await redis.zscore(QUEUE, "too-late") is not None


async def test_a_second_signal_hurries(make_worker: MakeWorker, redis: ArqRedis) -> None:
    long = Long()
    worker = make_worker([long.function], burst=False, job_completion_wait=60)
    job = await redis.enqueue_job("long")
    assert job is not None
    serving = asyncio.create_task(worker.async_run())
    await asyncio.wait_for(long.started.wait(), 5)
    for _ in range(2):
        worker.handle_sig_wait_for_completion(signal.SIGINT)
    await asyncio.wait_for(serving, 10)
    await worker.close()
    assert long.cancelled
    assert await redis.zscore(QUEUE, job.job_id) is not None
    assert (worker.jobs_retried, worker.jobs_failed) == (1, 0)


async def test_a_worker_that_never_ran_can_be_closed(make_worker: MakeWorker) -> None:
    await make_worker([add]).close()


async def test_a_worker_closed_before_its_first_turn_does_not_run(make_worker: MakeWorker, redis: ArqRedis) -> None:
    await redis.enqueue_job("add", 1, _job_id="one")
    worker = make_worker([add])
    serving = asyncio.create_task(worker.async_run())
    await asyncio.sleep(0)  # one turn: the main task is made, and has not begun
    assert worker.main_task is not None
    worker.handle_sig(signal.SIGTERM)
    await worker.close()
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert await redis.zscore(QUEUE, "one") is not None


async def test_the_server_may_restart_under_the_worker(start_server: Callable[..., Any]) -> None:
    """arq's worker ends with the first command that Redis does not answer."""
    server = start_server()
    ticks: list[str] = []

    async def tick(ctx: dict[str, Any]) -> None:
        ticks.append(ctx["job_id"])

    crons = [cron(tick, name="each", second=set(range(60)), microsecond=0, unique=False)]
    options: dict[str, Any] = {"health_check_interval": 0.02, "poll_delay": 0.05, "handle_signals": False}
    worker = Worker([add], cron_jobs=crons, redis_settings=settings_of(server.url), **options)
    async with running(worker):
        async with arq_client(server.url) as client:
            first = await client.enqueue_job("add", 1)
            assert first is not None
            assert await first.result(timeout=5, poll_delay=0.02) == 1
        with capture_logs() as said:
            server.stop()
            await until(lambda: {"cron_delayed", "health_not_recorded"} <= {entry["event"] for entry in said})
        server.start()
        seen = len(ticks)
        async with arq_client(server.url) as client:
            second = await client.enqueue_job("add", 2)
            assert second is not None
            assert await second.result(timeout=15, poll_delay=0.02) == 2
            await until(lambda: client.exists(f"{QUEUE}:health-check"))
        await until(lambda: len(ticks) > seen)


async def test_a_lost_lease_stops_the_job_and_counts_nothing(make_worker: MakeWorker, redis: ArqRedis) -> None:
    long = Long()
    job = await redis.enqueue_job("long")
    assert job is not None
    async with running(make_worker([long.function], burst=False)) as worker:
        await asyncio.wait_for(long.started.wait(), 5)
        await redis.set(f"arq:in-progress:{job.job_id}", "another/worker|3|1700000000000|1700000000000")
        await until(lambda: long.cancelled)
        await until(lambda: not worker.tasks)
        assert (worker.jobs_complete, worker.jobs_failed, worker.jobs_retried) == (0, 0, 0)


async def test_a_timeout_of_the_functions_own_stays_as_it_is(make_worker: MakeWorker, redis: ArqRedis) -> None:
    async def impatient(ctx: dict[str, Any]) -> None:
        raise TimeoutError("the airline did not answer")

    job = await redis.enqueue_job("impatient")
    assert job is not None
    await burst(make_worker([func(impatient, name="impatient")]))
    with pytest.raises(TimeoutError, match="the airline did not answer"):
        await job.result(timeout=5)


async def test_a_job_over_its_timeout_says_how_long_it_was(make_worker: MakeWorker, redis: ArqRedis) -> None:
    long = Long()
    job = await redis.enqueue_job("long")
    assert job is not None
    await burst(make_worker([long.function], job_timeout=0.05))
    with pytest.raises(TimeoutError, match=r"took longer than its timeout of 0\.05 s"):
        await job.result(timeout=5)


@pytest.mark.parametrize("job_id", ["trip 17", "Zürich→Lissabon", "a|b", "x" * 300])
async def test_a_job_may_have_any_id(make_worker: MakeWorker, redis: ArqRedis, job_id: str) -> None:
    job = await redis.enqueue_job("add", 1, _job_id=job_id)
    assert job is not None
    await redis.enqueue_job("fail", "x", _job_id=f"{job_id} fails")
    worker = await burst(make_worker([add, fail]))
    assert await job.result(timeout=5) == 1
    assert (worker.jobs_complete, worker.jobs_failed) == (1, 1)
    assert (await dead_letter_of(redis, f"{job_id} fails")).error == "ValueError: x"
