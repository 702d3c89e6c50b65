"""One table of arq's behaviour, seen through arq's real client, held by arq's own worker and by ours alike.

Every test runs with `arq.Worker` and with `agentqueue_worker.arq.Worker`, on Valkey and Redis: what differs between the
two on purpose is in test_arq_differences.py.
"""

import asyncio
import functools
import importlib
from collections.abc import AsyncIterator, Callable
from datetime import datetime, timedelta
from typing import Any

import pytest
from arq import Retry, func
from arq.connections import ArqRedis
from arq.jobs import Job, JobStatus, ResultNotFound, SerializationError
from arq.worker import FailedJobs, JobExecutionFailed, RetryJob

from agentqueue.arq import dumps, loads
from tests.support.arq_programs import JSON, PICKLE, QUEUE, arq_client, moment, running, settings_of
from tests.support.workers import until

# arq's own worker closes its pool by a name that redis-py has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")
MakeWorker = Callable[..., Any]


@pytest.fixture(params=["arq.worker", "agentqueue_worker.arq"], ids=["arq", "agentqueue"])
def make_worker(request: pytest.FixtureRequest, server_url: str) -> MakeWorker:
    """The Worker class under test, told the server and the JSON serializers, polling fast, without signal handlers."""
    kind = importlib.import_module(request.param).Worker
    return functools.partial(
        kind, redis_settings=settings_of(server_url), poll_delay=0.02, handle_signals=False, **JSON
    )


@pytest.fixture
async def redis(server_url: str) -> AsyncIterator[ArqRedis]:
    async with arq_client(server_url) as pool:
        yield pool


async def burst(worker: Any) -> Any:
    """Run it until the queue is empty, then close it."""
    try:
        await worker.async_run()
    finally:
        await worker.close()
    return worker


async def add(ctx: dict[str, Any], one: int, two: int = 0) -> int:
    return one + two


async def fail(ctx: dict[str, Any], *args: Any) -> None:
    raise ValueError(*args)


class Gate:
    """A job that tells it has started and goes on when it is let."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.open = asyncio.Event()
        self.cancelled = False

    async def __call__(self, ctx: dict[str, Any]) -> str:
        self.started.set()
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled = True
            raise
        return "through"

    @property
    def function(self) -> Any:
        async def gate(ctx: dict[str, Any]) -> str:
            return await self(ctx)

        return func(gate, name="gate")


async def job_of(redis: ArqRedis, *args: Any, **kwargs: Any) -> Job:
    job = await redis.enqueue_job(*args, **kwargs)
    assert job is not None
    return job


# --- what the client sees of a job ---------------------------------------------------------------------------------


async def test_a_job_returns_its_result(make_worker: MakeWorker, redis: ArqRedis) -> None:
    job = await job_of(redis, "add", 2, two=3)
    await burst(make_worker([add], burst=True))
    assert await job.result(timeout=5) == 5


async def test_the_result_can_be_awaited_before_the_job_has_run(make_worker: MakeWorker, redis: ArqRedis) -> None:
    async with running(make_worker([add])):
        job = await job_of(redis, "add", 40, 2)
        assert await job.result(timeout=5, poll_delay=0.02) == 42


async def test_info_tells_a_waiting_job(make_worker: MakeWorker, redis: ArqRedis) -> None:
    before = moment() - timedelta(milliseconds=2)
    job = await job_of(redis, "add", 1, two=2)
    info = await job.info()
    assert info is not None
    job_try: int | None = info.job_try  # arq's annotation leaves out None
    assert (info.function, info.args, info.kwargs, job_try) == ("add", (1,), {"two": 2}, None)
    assert before <= info.enqueue_time
    assert info.score == pytest.approx(info.enqueue_time.timestamp() * 1000, abs=1)
    assert await job.status() is JobStatus.queued


async def test_result_info_tells_how_it_went(make_worker: MakeWorker, redis: ArqRedis) -> None:
    job = await job_of(redis, "add", 1, two=2, _job_id="one")
    assert await job.result_info() is None
    await burst(make_worker([add], burst=True))
    info = await job.result_info()
    assert info is not None
    assert (info.function, info.args, info.kwargs, info.result) == ("add", (1,), {"two": 2}, 3)
    assert (info.success, info.job_try, info.queue_name, info.job_id) == (True, 1, QUEUE, "one")
    assert info.enqueue_time <= info.start_time <= info.finish_time
    assert info.score is None


async def test_status_follows_a_job_through_its_life(make_worker: MakeWorker, redis: ArqRedis) -> None:
    gate = Gate()
    job = await job_of(redis, "gate", _defer_by=0.3)
    assert await job.status() is JobStatus.deferred
    async with running(make_worker([gate.function])):
        await asyncio.wait_for(gate.started.wait(), 5)
        assert await job.status() is JobStatus.in_progress
        gate.open.set()
        assert await job.result(timeout=5, poll_delay=0.02) == "through"
        assert await job.status() is JobStatus.complete


async def test_an_unknown_job_is_not_found(make_worker: MakeWorker, redis: ArqRedis) -> None:
    job = Job("never", redis, _deserializer=loads)
    assert await job.status() is JobStatus.not_found
    assert await job.info() is None
    with pytest.raises(ResultNotFound):
        await job.result(timeout=1)


async def test_a_failed_jobs_exception_is_raised_at_the_client(make_worker: MakeWorker, redis: ArqRedis) -> None:
    job = await job_of(redis, "fail", "no such airport", 7)
    worker = await burst(make_worker([fail], burst=True))
    with pytest.raises(ValueError, match="no such airport") as raised:
        await job.result(timeout=5)
    assert raised.value.args == ("no such airport", 7)
    assert (worker.jobs_complete, worker.jobs_failed, worker.jobs_retried) == (0, 1, 0)


async def test_an_exception_of_the_users_own_comes_as_job_execution_failed(
    make_worker: MakeWorker, redis: ArqRedis
) -> None:
    class NoSeatsError(Exception):
        pass

    async def book(ctx: dict[str, Any]) -> None:
        raise NoSeatsError("row", 12)

    job = await job_of(redis, "book")
    await burst(make_worker([func(book, name="book")], burst=True))
    with pytest.raises(JobExecutionFailed, match="NoSeatsError: row, 12"):
        await job.result(timeout=5)


async def test_waiting_for_a_result_times_out(make_worker: MakeWorker, redis: ArqRedis) -> None:
    gate = Gate()
    job = await job_of(redis, "gate")
    async with running(make_worker([gate.function])):
        await asyncio.wait_for(gate.started.wait(), 5)
        with pytest.raises(TimeoutError):
            await job.result(timeout=0.03, poll_delay=0.02)
        gate.open.set()
        assert await job.result(timeout=5, poll_delay=0.02) == "through"


async def test_a_running_job_is_waited_for_though_it_has_started(make_worker: MakeWorker, redis: ArqRedis) -> None:
    gate = Gate()
    job = await job_of(redis, "gate")
    async with running(make_worker([gate.function])):
        await asyncio.wait_for(gate.started.wait(), 5)
        waiter = asyncio.create_task(job.result(timeout=5, poll_delay=0.01))
        await asyncio.wait([waiter], timeout=0.05)
        assert not waiter.done()
        gate.open.set()
        assert await waiter == "through"


async def test_queued_jobs_lists_what_waits(make_worker: MakeWorker, redis: ArqRedis) -> None:
    await job_of(redis, "add", 1, _job_id="now")
    await job_of(redis, "add", 2, _job_id="later", _defer_by=3600)
    found = await redis.queued_jobs()
    assert [(job.job_id, job.function, job.args) for job in found] == [("now", "add", (1,)), ("later", "add", (2,))]


async def test_all_job_results_lists_what_ended(make_worker: MakeWorker, redis: ArqRedis) -> None:
    await job_of(redis, "add", 1, _job_id="good")
    await job_of(redis, "fail", "x", _job_id="bad")
    await burst(make_worker([add, fail], burst=True))
    found = {result.job_id: (result.success, result.result) for result in await redis.all_job_results()}
    assert found["good"] == (True, 1)
    assert found["bad"][0] is False
    assert isinstance(found["bad"][1], ValueError)


# --- when a job runs -----------------------------------------------------------------------------------------------


async def test_defer_by_and_defer_until_run_no_sooner(make_worker: MakeWorker, redis: ArqRedis) -> None:
    starts: dict[str, datetime] = {}

    async def note(ctx: dict[str, Any]) -> None:
        starts[ctx["job_id"]] = moment()

    now = moment()
    await job_of(redis, "note", _job_id="by", _defer_by=timedelta(seconds=0.15))
    await job_of(redis, "note", _job_id="until", _defer_until=now + timedelta(seconds=0.3))
    await burst(make_worker([func(note, name="note")], burst=True))
    slack = timedelta(milliseconds=2)
    assert starts["by"] >= now + timedelta(seconds=0.15) - slack
    assert starts["until"] >= now + timedelta(seconds=0.3) - slack


async def test_a_job_past_its_expires_ends_as_expired(make_worker: MakeWorker, redis: ArqRedis) -> None:
    job = await job_of(redis, "add", 1, _expires=0.03)
    await until(lambda: _is_gone(redis, f"arq:job:{job.job_id}"))
    worker = await burst(make_worker([add], burst=True))
    with pytest.raises(JobExecutionFailed, match="job expired"):
        await job.result(timeout=5)
    assert worker.jobs_failed == 1


async def test_expires_holds_for_retries_too(make_worker: MakeWorker, redis: ArqRedis) -> None:
    async def again(ctx: dict[str, Any]) -> None:
        raise Retry(defer=0.2)

    job = await job_of(redis, "again", _expires=0.15)
    await burst(make_worker([func(again, name="again")], burst=True))
    with pytest.raises(JobExecutionFailed, match="job expired"):
        await job.result(timeout=5)


async def _is_gone(redis: ArqRedis, key: str) -> bool:
    return not await redis.exists(key)


async def test_an_id_is_taken_while_its_job_waits_or_its_result_is_kept(
    make_worker: MakeWorker, redis: ArqRedis
) -> None:
    assert await redis.enqueue_job("add", 1, _job_id="same")
    assert await redis.enqueue_job("add", 2, _job_id="same") is None
    await burst(make_worker([add], burst=True))
    assert await redis.enqueue_job("add", 3, _job_id="same") is None
    assert await Job("same", redis, _deserializer=loads).result(timeout=5) == 1


async def test_an_id_is_free_again_when_no_result_is_kept(make_worker: MakeWorker, redis: ArqRedis) -> None:
    assert await redis.enqueue_job("add", 1, _job_id="same")
    await burst(make_worker([add], burst=True, keep_result=0))
    assert await redis.enqueue_job("add", 2, _job_id="same")


async def test_max_jobs_bounds_what_runs_at_once(make_worker: MakeWorker, redis: ArqRedis) -> None:
    running_now, most = 0, 0

    async def overlap(ctx: dict[str, Any]) -> None:
        nonlocal running_now, most
        running_now += 1
        most = max(most, running_now)
        await asyncio.sleep(0.03)
        running_now -= 1

    for _ in range(9):
        await job_of(redis, "overlap")
    worker = await burst(make_worker([func(overlap, name="overlap")], burst=True, max_jobs=3))
    assert (most, worker.jobs_complete) == (3, 9)


async def test_another_queue_is_served_by_its_own_worker(make_worker: MakeWorker, redis: ArqRedis) -> None:
    own = await job_of(redis, "add", 1, _queue_name="other")
    foreign = await job_of(redis, "add", 2)
    await burst(make_worker([add], burst=True, queue_name="other"))
    assert await own.result(timeout=5) == 1
    assert await foreign.status() is JobStatus.queued


# --- retries -------------------------------------------------------------------------------------------------------


async def test_retry_runs_it_again_with_the_next_try(make_worker: MakeWorker, redis: ArqRedis) -> None:
    tries: list[int] = []

    async def flaky(ctx: dict[str, Any]) -> str:
        tries.append(ctx["job_try"])
        if ctx["job_try"] < 3:
            raise Retry(defer=0.01 if ctx["job_try"] == 1 else None)
        return "at last"

    job = await job_of(redis, "flaky")
    worker = await burst(make_worker([func(flaky, name="flaky")], burst=True))
    assert await job.result(timeout=5) == "at last"
    assert tries == [1, 2, 3]
    assert (worker.jobs_complete, worker.jobs_failed, worker.jobs_retried) == (1, 0, 2)
    info = await job.result_info()
    assert info is not None
    assert info.job_try == 3


async def test_retry_waits_as_long_as_it_says(make_worker: MakeWorker, redis: ArqRedis) -> None:
    starts: list[datetime] = []

    async def flaky(ctx: dict[str, Any]) -> None:
        starts.append(moment())
        if ctx["job_try"] == 1:
            raise Retry(defer=timedelta(seconds=0.2))

    await job_of(redis, "flaky")
    await burst(make_worker([func(flaky, name="flaky")], burst=True))
    assert starts[1] - starts[0] >= timedelta(seconds=0.19)


@pytest.mark.parametrize("exception", [RetryJob, asyncio.CancelledError])
async def test_retry_job_and_cancelled_error_run_it_again(
    make_worker: MakeWorker, redis: ArqRedis, exception: type[BaseException]
) -> None:
    async def flaky(ctx: dict[str, Any]) -> int:
        if ctx["job_try"] == 1:
            raise exception
        return int(ctx["job_try"])

    job = await job_of(redis, "flaky")
    worker = await burst(make_worker([func(flaky, name="flaky")], burst=True))
    assert await job.result(timeout=5) == 2
    assert (worker.jobs_complete, worker.jobs_failed, worker.jobs_retried) == (1, 0, 1)


@pytest.mark.parametrize(
    ("worker_tries", "function_tries", "expected"),
    [pytest.param(3, None, 3, id="the-workers"), pytest.param(5, 2, 2, id="the-functions-own")],
)
async def test_max_tries_ends_the_retries(
    make_worker: MakeWorker, redis: ArqRedis, worker_tries: int, function_tries: int | None, expected: int
) -> None:
    tries: list[int] = []

    async def again(ctx: dict[str, Any]) -> None:
        tries.append(ctx["job_try"])
        raise Retry(defer=0.01)

    job = await job_of(redis, "again")
    function = func(again, name="again", max_tries=function_tries)
    worker = await burst(make_worker([function], burst=True, max_tries=worker_tries))
    with pytest.raises(JobExecutionFailed, match=f"max {expected} retries exceeded"):
        await job.result(timeout=5)
    assert tries == list(range(1, expected + 1))
    assert (worker.jobs_failed, worker.jobs_retried) == (1, expected)


async def test_a_plain_exception_is_final(make_worker: MakeWorker, redis: ArqRedis) -> None:
    runs = []

    async def boom(ctx: dict[str, Any]) -> None:
        runs.append(1)
        raise RuntimeError("boom")

    job = await job_of(redis, "boom")
    worker = await burst(make_worker([func(boom, name="boom")], burst=True))
    with pytest.raises(RuntimeError, match="boom"):
        await job.result(timeout=5)
    assert (len(runs), worker.jobs_failed, worker.jobs_retried) == (1, 1, 0)


async def test_without_retry_jobs_a_retry_is_a_failure(make_worker: MakeWorker, redis: ArqRedis) -> None:
    async def again(ctx: dict[str, Any]) -> None:
        raise Retry(defer=5)

    job = await job_of(redis, "again")
    worker = await burst(make_worker([func(again, name="again")], burst=True, retry_jobs=False))
    with pytest.raises(Retry):
        await job.result(timeout=5)
    assert (worker.jobs_failed, worker.jobs_retried) == (1, 0)


async def test_job_try_starts_where_the_client_says(make_worker: MakeWorker, redis: ArqRedis) -> None:
    tries: list[int] = []

    async def flaky(ctx: dict[str, Any]) -> None:
        tries.append(ctx["job_try"])
        if len(tries) < 3:
            raise Retry

    await job_of(redis, "flaky", _job_try=3)
    await burst(make_worker([func(flaky, name="flaky")], burst=True, max_tries=9))
    assert tries == [3, 4, 5]


async def test_a_job_enqueued_past_its_tries_does_not_run(make_worker: MakeWorker, redis: ArqRedis) -> None:
    job = await job_of(redis, "add", 1, _job_try=6)
    worker = await burst(make_worker([add], burst=True, max_tries=5))
    with pytest.raises(JobExecutionFailed, match="max 5 retries exceeded"):
        await job.result(timeout=5)
    assert (worker.jobs_complete, worker.jobs_failed) == (0, 1)


async def test_an_unknown_function_is_final(make_worker: MakeWorker, redis: ArqRedis) -> None:
    job = await job_of(redis, "nope")
    worker = await burst(make_worker([add], burst=True))
    with pytest.raises(JobExecutionFailed, match="function 'nope' not found"):
        await job.result(timeout=5)
    assert worker.jobs_failed == 1


# --- limits and results --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("worker_timeout", "function_timeout"),
    [pytest.param(0.05, None, id="the-workers"), pytest.param(60, timedelta(seconds=0.05), id="the-functions-own")],
)
async def test_a_job_over_its_timeout_fails(
    make_worker: MakeWorker, redis: ArqRedis, worker_timeout: float, function_timeout: Any
) -> None:
    gate = Gate()

    async def slow(ctx: dict[str, Any]) -> None:
        await gate(ctx)

    job = await job_of(redis, "slow")
    function = func(slow, name="slow", timeout=function_timeout)
    worker = await burst(make_worker([function], burst=True, job_timeout=worker_timeout))
    with pytest.raises(TimeoutError):
        await job.result(timeout=5)
    assert gate.cancelled
    assert (worker.jobs_failed, worker.jobs_retried) == (1, 0)


@pytest.mark.parametrize(
    ("options", "own", "bounds"),
    [
        pytest.param({}, {}, (3_590_000, 3_600_000), id="default-1-hour"),
        pytest.param({"keep_result": timedelta(minutes=2)}, {}, (110_000, 120_000), id="the-workers"),
        pytest.param({"keep_result": 120}, {"keep_result": 30}, (20_000, 30_000), id="the-functions-own"),
        pytest.param({"keep_result_forever": True}, {}, (-1, -1), id="forever"),
        pytest.param(
            {"keep_result_forever": True}, {"keep_result_forever": False}, (3_590_000, 3_600_000), id="not-this"
        ),
        pytest.param({}, {"keep_result": 0}, (-2, -2), id="none"),
    ],
)
@pytest.mark.parametrize("name", ["add", "fail"])
async def test_results_are_kept_as_long_as_asked(
    make_worker: MakeWorker, redis: ArqRedis, *, name: str, options: Any, own: Any, bounds: Any
) -> None:
    job = await job_of(redis, name, 1)
    functions = [func(add, name="add", **own), func(fail, name="fail", **own)]
    await burst(make_worker(functions, burst=True, **options))
    assert bounds[0] <= await redis.pttl(f"arq:result:{job.job_id}") <= bounds[1]
    assert await redis.exists(f"arq:job:{job.job_id}", f"arq:in-progress:{job.job_id}") == 0
    assert await redis.zscore(QUEUE, job.job_id) is None


async def test_a_result_that_is_not_json_is_said_to_be(make_worker: MakeWorker, redis: ArqRedis) -> None:
    async def odd(ctx: dict[str, Any]) -> Any:
        return {1, 2}

    job = await job_of(redis, "odd")
    worker = await burst(make_worker([func(odd, name="odd")], burst=True))
    with pytest.raises(SerializationError, match="unable to serialize result"):
        await job.result(timeout=5)
    assert worker.jobs_complete == 1


# --- the context and the hooks -------------------------------------------------------------------------------------


async def test_the_context_has_arqs_keys_and_the_users(make_worker: MakeWorker, redis: ArqRedis) -> None:
    seen: dict[str, Any] = {}

    async def look(ctx: dict[str, Any]) -> None:
        seen.update(ctx)

    async def on_startup(ctx: dict[str, Any]) -> None:
        ctx["opened"] = "at startup"

    job = await job_of(redis, "look", _job_id="looked")
    info = await job.info()
    assert info is not None
    options = {"ctx": {"own": 1}, "on_startup": on_startup}
    await burst(make_worker([func(look, name="look")], burst=True, **options))
    assert (seen["job_id"], seen["job_try"], seen["own"], seen["opened"]) == ("looked", 1, 1, "at startup")
    assert seen["enqueue_time"] == info.enqueue_time
    assert (type(seen["score"]), seen["score"]) == (int, info.score)
    assert isinstance(seen["redis"], ArqRedis)


async def test_jobs_do_not_share_what_they_put_into_the_context(make_worker: MakeWorker, redis: ArqRedis) -> None:
    seen: list[Any] = []

    async def mark(ctx: dict[str, Any]) -> None:
        seen.append(ctx.get("mark"))
        ctx["mark"] = True

    for _ in range(2):
        await job_of(redis, "mark")
    await burst(make_worker([func(mark, name="mark")], burst=True, max_jobs=1))
    assert seen == [None, None]


async def test_a_job_enqueues_another_through_its_context(make_worker: MakeWorker, redis: ArqRedis) -> None:
    async def parent(ctx: dict[str, Any]) -> str:
        child: Job = await ctx["redis"].enqueue_job("add", 20, two=22)
        return child.job_id

    job = await job_of(redis, "parent")
    worker = await burst(make_worker([func(parent, name="parent"), add], burst=True))
    child = Job(await job.result(timeout=5), redis, _deserializer=loads)
    assert await child.result(timeout=5) == 42
    assert worker.jobs_complete == 2


async def test_hooks_are_called_in_arqs_order(make_worker: MakeWorker, redis: ArqRedis) -> None:
    calls: list[tuple[str, Any, bool]] = []

    def hook(name: str) -> Any:
        async def note(ctx: dict[str, Any]) -> None:
            job_id = ctx.get("job_id")
            recorded = bool(job_id and await ctx["redis"].exists(f"arq:result:{job_id}"))
            calls.append((name, job_id, recorded))

        return note

    names = ("on_startup", "on_job_start", "on_job_end", "after_job_end", "on_shutdown")
    work = hook("work")
    await job_of(redis, "work", _job_id="one")
    await burst(make_worker([func(work, name="work")], burst=True, **{name: hook(name) for name in names}))
    assert calls == [
        ("on_startup", None, False),
        ("on_job_start", "one", False),
        ("work", "one", False),
        ("on_job_end", "one", False),
        ("after_job_end", "one", True),
        ("on_shutdown", None, False),
    ]


@pytest.mark.parametrize("name", ["fail", "again"])
async def test_hooks_are_called_for_failures_and_retries_too(
    make_worker: MakeWorker, redis: ArqRedis, name: str
) -> None:
    calls: list[str] = []

    def hook(label: str) -> Any:
        async def note(ctx: dict[str, Any]) -> None:
            calls.append(f"{label} {ctx['job_try']}")

        return note

    async def again(ctx: dict[str, Any], *args: Any) -> None:
        if ctx["job_try"] == 1:
            raise Retry

    await job_of(redis, name, "x")
    names = ("on_job_start", "on_job_end", "after_job_end")
    functions = [fail, func(again, name="again")]
    await burst(make_worker(functions, burst=True, **{each: hook(each) for each in names}))
    tries = [1] if name == "fail" else [1, 2]
    assert calls == [f"{each} {number}" for number in tries for each in names]


async def test_the_hooks_context_is_the_jobs_own(make_worker: MakeWorker, redis: ArqRedis) -> None:
    seen: list[Any] = []

    async def on_job_start(ctx: dict[str, Any]) -> None:
        ctx["handed"] = "over"

    async def work(ctx: dict[str, Any]) -> None:
        ctx["back"] = ctx["handed"]

    async def after_job_end(ctx: dict[str, Any]) -> None:
        seen.append(ctx["back"])

    await job_of(redis, "work")
    options = {"on_job_start": on_job_start, "after_job_end": after_job_end}
    await burst(make_worker([func(work, name="work")], burst=True, **options))
    assert seen == ["over"]


# --- aborts --------------------------------------------------------------------------------------------------------


async def test_a_running_job_is_aborted(make_worker: MakeWorker, redis: ArqRedis) -> None:
    gate = Gate()
    job = await job_of(redis, "gate")
    async with running(make_worker([gate.function], allow_abort_jobs=True)) as worker:
        await asyncio.wait_for(gate.started.wait(), 5)
        assert await job.abort(timeout=5, poll_delay=0.02) is True
        assert gate.cancelled
        await until(lambda: worker.jobs_failed == 1)
    info = await job.result_info()
    assert info is not None
    assert (info.success, type(info.result)) == (False, asyncio.CancelledError)
    assert await redis.zcard("arq:abort") == 0


@pytest.mark.parametrize("defer_by", [None, 3600], ids=["waiting", "deferred"])
async def test_a_job_that_has_not_started_is_aborted(
    make_worker: MakeWorker, redis: ArqRedis, defer_by: float | None
) -> None:
    runs: list[int] = []

    async def never(ctx: dict[str, Any]) -> None:
        runs.append(1)

    job = await job_of(redis, "never", _defer_by=defer_by)
    abort = asyncio.create_task(job.abort(timeout=5, poll_delay=0.02))
    await until(lambda: redis.zcard("arq:abort"))
    async with running(make_worker([func(never, name="never")], allow_abort_jobs=True)) as worker:
        assert await abort is True
        await until(lambda: worker.jobs_failed == 1)
    assert runs == []
    assert await redis.exists(f"arq:job:{job.job_id}") == 0
    assert await redis.zcard("arq:abort") == 0


async def test_aborting_a_finished_job_answers_false(make_worker: MakeWorker, redis: ArqRedis) -> None:
    job = await job_of(redis, "add", 1)
    async with running(make_worker([add], allow_abort_jobs=True)):
        assert await job.result(timeout=5, poll_delay=0.02) == 1
        assert await job.abort(timeout=5, poll_delay=0.02) is False


async def test_without_allow_abort_jobs_a_job_runs_to_its_end(make_worker: MakeWorker, redis: ArqRedis) -> None:
    gate = Gate()
    job = await job_of(redis, "gate")
    async with running(make_worker([gate.function])):
        await asyncio.wait_for(gate.started.wait(), 5)
        abort = asyncio.create_task(job.abort(timeout=5, poll_delay=0.02))
        await until(lambda: redis.zcard("arq:abort"))
        gate.open.set()
        assert await abort is False
    assert not gate.cancelled
    assert await job.result(timeout=5) == "through"


# --- the worker itself ---------------------------------------------------------------------------------------------


async def test_burst_ends_on_an_empty_queue(make_worker: MakeWorker, redis: ArqRedis) -> None:
    worker = await burst(make_worker([add], burst=True))
    assert worker.jobs_complete == 0


async def test_max_burst_jobs_bounds_the_starts(make_worker: MakeWorker, redis: ArqRedis) -> None:
    for number in range(4):
        await job_of(redis, "add", number)
    worker = await burst(make_worker([add], burst=True, max_burst_jobs=3))
    assert worker.jobs_complete == 3
    assert await redis.zcard(QUEUE) == 1


async def test_run_check_counts_the_completed(make_worker: MakeWorker, redis: ArqRedis) -> None:
    for number in range(3):
        await job_of(redis, "add", number)
    worker = make_worker([add], burst=True)
    assert await worker.run_check() == 3
    await worker.close()


async def test_run_check_raises_the_failed(make_worker: MakeWorker, redis: ArqRedis) -> None:
    await job_of(redis, "add", 1)
    await job_of(redis, "fail", "no", "way")
    worker = make_worker([add, fail], burst=True)
    with pytest.raises(FailedJobs, match="1 job failed ValueError") as raised:
        await worker.run_check()
    assert raised.value.count == 1
    assert [result.function for result in raised.value.job_results] == ["fail"]
    await worker.close()


async def test_run_check_overrides_retries_and_the_number_of_jobs(make_worker: MakeWorker, redis: ArqRedis) -> None:
    async def again(ctx: dict[str, Any]) -> None:
        raise Retry

    await job_of(redis, "again")
    worker = make_worker([func(again, name="again")], burst=True)
    with pytest.raises(FailedJobs, match="Retry defer"):
        await worker.run_check(retry_jobs=False, max_burst_jobs=1)
    await worker.close()


async def test_a_pool_of_the_users_own_serves_the_worker(
    make_worker: MakeWorker, redis: ArqRedis, server_url: str
) -> None:
    async with arq_client(server_url, default_queue_name="own") as pool:
        job = await job_of(pool, "add", 3)
        worker = await burst(make_worker([add], burst=True, redis_settings=None, redis_pool=pool, queue_name=None))
        assert (worker.queue_name, worker.jobs_complete) == ("own", 1)
    assert await Job(job.job_id, redis, "own", loads).result(timeout=5) == 3


async def test_the_health_check_is_written_and_taken_away(make_worker: MakeWorker, redis: ArqRedis) -> None:
    await job_of(redis, "add", 1)
    async with running(make_worker([add], health_check_interval=0.05)):
        # A job counts as complete when its handler has returned, which is before Redis has recorded it.
        await until(lambda: _health(redis, b"j_complete=1 j_failed=0 j_retried=0 j_ongoing=0 queued=0"))
        assert 0 < await redis.pttl(f"{QUEUE}:health-check") <= 1_050
    assert await redis.get(f"{QUEUE}:health-check") is None


async def test_the_health_check_goes_to_the_key_asked_for(make_worker: MakeWorker, redis: ArqRedis) -> None:
    async with running(make_worker([add], health_check_key="health")):
        await until(lambda: redis.exists("health"))
        assert 3_500_000 < await redis.pttl("health") <= 3_601_000


async def _health(redis: ArqRedis, text: bytes) -> bytes | None:
    record = await redis.get(f"{QUEUE}:health-check")
    return record if record and text in record else None


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        pytest.param({"functions": []}, RuntimeError, "at least one function or cron_job", id="nothing-to-run"),
        pytest.param({"functions": [add], "queue_name": None}, ValueError, "redis_pool must be present", id="no-queue"),
        pytest.param({"functions": [add], "cron_jobs": [add]}, RuntimeError, "instances of CronJob", id="no-cron"),
        pytest.param({"functions": [lambda ctx: 1]}, RuntimeError, "is not a coroutine function", id="plain-function"),
    ],
)
async def test_wrong_arguments_are_refused_as_arq_does(
    make_worker: MakeWorker, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make_worker(**options)


async def test_a_worker_describes_itself(make_worker: MakeWorker, redis: ArqRedis) -> None:
    await job_of(redis, "add", 1)
    worker = await burst(make_worker([add], burst=True))
    assert repr(worker) == "<Worker j_complete=1 j_failed=0 j_retried=0 j_ongoing=0>"


# --- pickle, when asked for ----------------------------------------------------------------------------------------


class Passenger:
    def __init__(self, name: str) -> None:
        self.name = name


class NoSeatsError(Exception):
    pass


async def board(ctx: dict[str, Any], passenger: Passenger, seats: set[int]) -> set[str]:
    if not seats:
        raise NoSeatsError(passenger.name)
    return {f"{passenger.name} in {seat}" for seat in seats}


@pytest.fixture
def pickled(monkeypatch: pytest.MonkeyPatch) -> None:
    """This module under its name, so that pickle finds its classes (importlib mode does not enter it)."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or _this_module())


def _this_module() -> Any:
    import types

    module = types.ModuleType(__name__)
    module.__dict__.update(globals())
    return module


@pytest.mark.usefixtures("pickled")
async def test_with_pickle_asked_for_any_object_goes_through(make_worker: MakeWorker, server_url: str) -> None:
    async with arq_client(server_url, **PICKLE) as client:
        good = await job_of(client, "board", Passenger("Ada"), {3, 4})
        bad = await job_of(client, "board", Passenger("Bob"), set())
        await burst(make_worker([board], burst=True, **PICKLE))
        assert await good.result(timeout=5) == {"Ada in 3", "Ada in 4"}
        with pytest.raises(NoSeatsError, match="Bob"):
            await bad.result(timeout=5)


async def test_a_pair_of_serializers_of_the_users_own_is_used_both_ways(
    make_worker: MakeWorker, server_url: str
) -> None:
    def write(record: dict[str, Any]) -> bytes:
        return b"own:" + dumps(record)

    def read(raw: bytes) -> dict[str, Any]:
        assert raw.startswith(b"own:")
        return loads(raw[4:])

    async with arq_client(server_url, job_serializer=write, job_deserializer=read) as client:
        job = await job_of(client, "add", 1, two=1)
        await burst(make_worker([add], burst=True, job_serializer=write, job_deserializer=read))
        assert await job.result(timeout=5) == 2


async def test_a_record_that_cannot_be_read_ends_as_failed(make_worker: MakeWorker, redis: ArqRedis) -> None:
    await redis.set("arq:job:garbage", b"\x00 not a record")
    await redis.zadd(QUEUE, {"garbage": 1_700_000_000_000})
    await job_of(redis, "add", 1, _job_id="next")
    worker = await burst(make_worker([add], burst=True))
    assert (worker.jobs_complete, worker.jobs_failed) == (1, 1)
    info = await Job("garbage", redis, _deserializer=loads).result_info()
    assert info is not None
    assert info.success is False
