"""arq's crons on this engine: each tick once over all workers, with arq's ids, options and time zones."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import arq
import pytest
from arq import cron
from arq.connections import ArqRedis

from agentqueue import Client
from agentqueue.model.job import JobRecord, encode_job
from agentqueue.model.new_job import NewJob
from agentqueue_worker.arq import Worker
from tests.support.arq_programs import JSON, PICKLE, QUEUE, arq_client, moment, running, settings_of
from tests.support.workers import until

EVERY_SECOND = set(range(60))


@pytest.fixture
async def redis(server_url: str) -> AsyncIterator[ArqRedis]:
    async with arq_client(server_url) as pool:
        yield pool


class Ticks:
    """A cron's function that notes its runs."""

    def __init__(self) -> None:
        self.runs: list[tuple[str, datetime]] = []

    async def note(self, ctx: dict[str, Any]) -> None:
        self.runs.append((ctx["job_id"], moment()))

    def every_second(self, **options: Any) -> Any:
        given: dict[str, Any] = {"name": "tick", "second": EVERY_SECOND, "microsecond": 0} | options
        return cron(self.note, **given)


def make_worker(url: str, *crons: Any, **options: Any) -> Any:
    defaults = JSON | {"poll_delay": 0.1, "handle_signals": False}
    return Worker(cron_jobs=crons, redis_settings=settings_of(url), **(defaults | options))


async def test_each_tick_runs_once_over_two_workers(server_url: str, redis: ArqRedis) -> None:
    ticks = Ticks()
    async with (
        running(make_worker(server_url, ticks.every_second())),
        running(make_worker(server_url, ticks.every_second())),
    ):
        await until(lambda: len(ticks.runs) >= 3)
    counted = Counter(job_id for job_id, _ in ticks.runs)
    assert set(counted.values()) == {1}
    seconds = [int(job_id.removeprefix("tick:")) for job_id in counted]
    assert all(second % 1000 == 0 for second in seconds)
    assert seconds == sorted(seconds)


async def test_crons_of_one_name_in_two_queues_have_their_own_ticks(server_url: str, redis: ArqRedis) -> None:
    here, elsewhere = Ticks(), Ticks()
    async with (
        running(make_worker(server_url, here.every_second(keep_result=60))),
        running(make_worker(server_url, elsewhere.every_second(keep_result=60), queue_name="elsewhere")),
    ):
        await until(lambda: len(_seconds(here) & _seconds(elsewhere)) >= 2)
    for ticks in (here, elsewhere):
        assert len(ticks.runs) == len(_seconds(ticks))


def _seconds(ticks: Ticks) -> set[str]:
    """The ticks that it ran. The queue that came second has its name behind arq's id."""
    return {job_id.split(":")[1] for job_id, _ in ticks.runs}


@pytest.mark.parametrize("serializer", [JSON, PICKLE], ids=["json", "pickle"])
@pytest.mark.parametrize("is_done", [False, True], ids=["waits", "done"])
async def test_a_tick_that_a_plain_arq_worker_of_the_queue_enqueued_is_not_enqueued_again(
    server_url: str, serializer: dict[str, Any], is_done: bool
) -> None:
    async with arq_client(server_url, **serializer) as client, Client(server_url) as own:
        await client.enqueue_job("tick", _job_id="tick:1000")
        if is_done:
            plain = arq.Worker([arq.func(Ticks().note, name="tick")], redis_pool=client, burst=True, **serializer)
            await plain.async_run()
        other = [NewJob(queue, "tick:1000", encode_job(JobRecord("tick"))) for queue in (QUEUE, "mail")]
        assert await own.store.tick("tick", 1000, other[0]) is None
        assert await own.store.tick("tick", 1000, other[1]) == "tick:1000:mail"
        assert await own.store.tick("tick", 1000, other[1]) is None


async def test_a_tick_starts_no_sooner_than_its_time_and_soon_after(server_url: str, redis: ArqRedis) -> None:
    ticks = Ticks()
    async with running(make_worker(server_url, ticks.every_second(microsecond=250_000))):
        await until(lambda: ticks.runs)
    job_id, started = ticks.runs[0]
    due = datetime.fromtimestamp(int(job_id.removeprefix("tick:")) / 1000, tz=UTC)
    assert due.microsecond == 250_000
    assert timedelta(milliseconds=-1) <= started - due < timedelta(seconds=5)


async def test_a_cron_keeps_no_result_unless_asked(server_url: str, redis: ArqRedis) -> None:
    ticks, kept = Ticks(), Ticks()
    crons = [ticks.every_second(), kept.every_second(name="kept", keep_result=60)]
    async with running(make_worker(server_url, *crons)) as worker:
        await until(lambda: worker.jobs_complete >= 2 and ticks.runs and kept.runs)
    found = {key.decode() for key in await redis.keys("arq:result:*")}
    assert found >= {f"arq:result:{kept.runs[0][0]}"}
    assert not any(key.startswith("arq:result:tick:") for key in found)


async def test_run_at_startup_runs_at_once(server_url: str, redis: ArqRedis) -> None:
    ticks = Ticks()
    job = cron(ticks.note, name="startup", month=1, day=1, hour=3, run_at_startup=True)
    before = moment()
    async with running(make_worker(server_url, job)):
        await until(lambda: ticks.runs)
    job_id, _ = ticks.runs[0]
    due = datetime.fromtimestamp(int(job_id.removeprefix("startup:")) / 1000, tz=UTC)
    assert before - timedelta(milliseconds=2) <= due <= moment()


async def test_a_burst_runs_what_runs_at_startup(server_url: str, redis: ArqRedis) -> None:
    ticks = Ticks()
    worker = make_worker(server_url, ticks.every_second(hour=3, minute=1, run_at_startup=True), burst=True)
    assert await worker.run_check() == 1
    await worker.close()


async def test_without_unique_every_worker_runs_it(server_url: str, redis: ArqRedis) -> None:
    ticks = Ticks()
    crons = [ticks.every_second(unique=False) for _ in range(2)]
    async with running(make_worker(server_url, crons[0])), running(make_worker(server_url, crons[1])):
        await until(lambda: len(ticks.runs) >= 4)
    ids = [job_id for job_id, _ in ticks.runs]
    assert len(set(ids)) == len(ids)
    assert not any(job_id.startswith("tick:") for job_id in ids)
    first, fourth = ticks.runs[0][1], ticks.runs[3][1]
    assert fourth - first < timedelta(seconds=2.5)  # two ticks by two workers: one of them would need four


async def test_a_job_id_of_its_own_is_one_job_at_a_time(server_url: str, redis: ArqRedis) -> None:
    started, let_go = asyncio.Event(), asyncio.Event()
    runs: list[str] = []

    async def long(ctx: dict[str, Any]) -> None:
        runs.append(ctx["job_id"])
        started.set()
        await let_go.wait()

    ticks = Ticks()
    job = cron(long, name="long", second=EVERY_SECOND, microsecond=0, job_id="only-one")
    async with running(make_worker(server_url, job, ticks.every_second())):
        await asyncio.wait_for(started.wait(), 10)
        await until(lambda: len(ticks.runs) >= 3)
        assert runs == ["only-one"]
        let_go.set()


async def test_a_failing_cron_is_a_dead_letter_and_the_next_tick_comes(server_url: str, redis: ArqRedis) -> None:
    async def bad(ctx: dict[str, Any]) -> None:
        raise ValueError("out of order")

    job = cron(bad, name="bad", second=EVERY_SECOND, microsecond=0)
    async with running(make_worker(server_url, job)) as worker:
        await until(lambda: worker.jobs_failed >= 2)
    assert await redis.zcard(f"{QUEUE}:dead") >= 2
    assert worker.jobs_retried == 0


async def test_a_cron_of_the_pickling_kind_is_read_by_plain_arq_workers(server_url: str) -> None:
    async with arq_client(server_url, **PICKLE) as client:
        job = cron(Ticks().note, name="later", second=EVERY_SECOND, microsecond=0)
        worker = make_worker(server_url, job, queue_name="elsewhere", **PICKLE)
        async with running(worker):
            await until(lambda: _noted(client, "arq:job:later:*"))


async def _noted(redis: ArqRedis, pattern: str) -> bool:
    for key in await redis.keys(pattern):
        raw = await redis.get(key)
        if raw is not None:
            return bool(PICKLE["job_deserializer"](raw)["f"] == "later")
    return False
