"""A plain arq worker and ours on one queue: what one holds the other leaves alone; nothing is lost or done twice."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import arq
import pytest
from arq import func
from arq.connections import ArqRedis
from arq.jobs import JobStatus

from agentqueue_worker.arq import Worker
from tests.support.arq_programs import JSON, QUEUE, arq_client, running, settings_of
from tests.support.workers import until

# arq's own worker closes its pool by a name that redis-py has deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")


@pytest.fixture
async def redis(server_url: str) -> AsyncIterator[ArqRedis]:
    async with arq_client(server_url) as pool:
        yield pool


def make(kind: Any, url: str, functions: list[Any], **options: Any) -> Any:
    defaults = JSON | {"poll_delay": 0.02, "handle_signals": False}
    return kind(functions, redis_settings=settings_of(url), **(defaults | options))


async def test_both_serve_one_queue_and_each_job_runs_once(server_url: str, redis: ArqRedis) -> None:
    runs: Counter[str] = Counter()
    by: Counter[str] = Counter()

    def work_of(name: str) -> Any:
        async def work(ctx: dict[str, Any], number: int) -> int:
            runs[ctx["job_id"]] += 1
            by[name] += 1
            await asyncio.sleep(0.01)
            return number

        return func(work, name="work")

    sent: dict[str, int] = {}
    async with (
        running(make(arq.Worker, server_url, [work_of("arq")], max_jobs=4)),
        running(make(Worker, server_url, [work_of("ours")], max_jobs=4)),
    ):
        while len(sent) < 80 or (min(by["arq"], by["ours"]) == 0 and len(sent) < 2_000):  # until both have started
            sent[f"job-{len(sent)}"] = len(sent)
            await redis.enqueue_job("work", len(sent) - 1, _job_id=f"job-{len(sent) - 1}")
        await until(lambda: _is_empty(redis))
    assert runs == Counter(sent.keys())
    assert min(by["arq"], by["ours"]) > 0
    results = {result.job_id: result.result for result in await redis.all_job_results()}
    assert results == sent


async def _is_empty(redis: ArqRedis) -> bool:
    return bool(await redis.zcard(QUEUE) == 0)


class Held:
    def __init__(self) -> None:
        self.started, self.open, self.runs = asyncio.Event(), asyncio.Event(), 0

    @property
    def function(self) -> Any:
        async def held(ctx: dict[str, Any]) -> str:
            self.runs += 1
            self.started.set()
            await self.open.wait()
            return "done"

        return func(held, name="held")


@pytest.mark.parametrize(("first", "second"), [(arq.Worker, Worker), (Worker, arq.Worker)], ids=["arqs", "ours"])
async def test_a_job_that_one_runs_is_left_alone_by_the_other(
    server_url: str, redis: ArqRedis, first: Any, second: Any
) -> None:
    held, other = Held(), Held()
    async with running(make(first, server_url, [held.function], max_jobs=1)):  # so that the later one is the other's
        job = await redis.enqueue_job("held")
        assert job is not None
        await asyncio.wait_for(held.started.wait(), 5)
        async with running(make(second, server_url, [other.function])) as worker:
            # The second one has looked at the queue since: it runs a job that came later.
            later = await redis.enqueue_job("held", _job_id="later")
            assert later is not None
            await asyncio.wait_for(other.started.wait(), 5)
            assert (held.runs + other.runs, await job.status()) == (2, JobStatus.in_progress)
            held.open.set()
            other.open.set()
            assert await job.result(timeout=5, poll_delay=0.02) == "done"
            assert await later.result(timeout=5, poll_delay=0.02) == "done"
            assert worker.jobs_complete + held.runs + other.runs >= 2
    assert held.runs + other.runs == 2


@pytest.mark.slow
async def test_a_plain_arq_workers_running_job_is_parked_until_its_key_runs_out(
    server_url: str, redis: ArqRedis
) -> None:
    """After a kill -9 of an arq worker its in-progress key stays for job_timeout + 10 s. Then the job runs here."""
    ran: list[str] = []

    async def work(ctx: dict[str, Any]) -> None:
        ran.append(ctx["job_id"])

    await redis.enqueue_job("work", _job_id="left-behind")
    await redis.psetex("arq:in-progress:left-behind", 3_000, b"1")
    async with running(make(Worker, server_url, [func(work, name="work")])):
        score = await until(lambda: _negative_score(redis, "left-behind"))
        seconds, micros = await redis.time()
        assert 0 < -score - (seconds * 1000 + micros / 1000) <= 3_000
        assert ran == []
        await until(lambda: ran == ["left-behind"])


async def _negative_score(redis: ArqRedis, job_id: str) -> float | None:
    score = await redis.zscore(QUEUE, job_id)
    return score if score is not None and score < 0 else None


async def test_arqs_abort_of_a_running_job_by_score_does_not_start_it_twice(server_url: str, redis: ArqRedis) -> None:
    """If arq's abort() reads that a job is deferred, and the job starts, it writes score 1 over the lease."""
    held = Held()
    async with running(make(Worker, server_url, [held.function], max_jobs=5)):
        job = await redis.enqueue_job("held")
        assert job is not None
        await asyncio.wait_for(held.started.wait(), 5)
        await redis.zadd(QUEUE, {job.job_id: 1})
        await until(lambda: _negative_score(redis, job.job_id))
        held.open.set()
        assert await job.result(timeout=5, poll_delay=0.02) == "done"
    assert held.runs == 1


@pytest.mark.slow
async def test_arqs_own_24_h_expiry_of_a_waiting_record_is_cleared(server_url: str, redis: ArqRedis) -> None:
    """arq's client lets records expire 24 h after they are due, in the queue or not: that would lose the job."""
    await redis.enqueue_job("held", _job_id="waits", _defer_by=3_600)
    await redis.enqueue_job("held", _job_id="of-the-users-own", _defer_by=3_600, _expires=7_200)
    assert 89_000_000 < await redis.pttl("arq:job:waits") <= 90_000_000
    async with running(make(Worker, server_url, [Held().function])):
        await until(lambda: _lives_for_ever(redis, "arq:job:waits"))
    assert 7_000_000 < await redis.pttl("arq:job:of-the-users-own") <= 7_200_000


async def _lives_for_ever(redis: ArqRedis, key: str) -> bool:
    return bool(await redis.pttl(key) == -1)


async def test_arqs_24_h_expiry_of_a_running_record_is_cleared_too(server_url: str, redis: ArqRedis) -> None:
    held = Held()
    async with running(make(Worker, server_url, [held.function])):
        await redis.enqueue_job("held", _job_id="runs")
        await asyncio.wait_for(held.started.wait(), 5)
        assert await redis.pttl("arq:job:runs") == -1
        held.open.set()


async def test_a_retry_counted_by_arq_is_counted_on_here(server_url: str, redis: ArqRedis) -> None:
    """An arq worker writes arq:retry when it starts a job: after its two tries, ours makes the third."""
    seen: list[int] = []

    async def work(ctx: dict[str, Any]) -> None:
        seen.append(ctx["job_try"])

    await redis.enqueue_job("work", _job_id="third")
    await redis.setex("arq:retry:third", 88_400, b"2")
    worker = make(Worker, server_url, [func(work, name="work")], burst=True)
    assert await worker.run_check() == 1
    await worker.close()
    assert seen == [3]
