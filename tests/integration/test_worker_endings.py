"""Ends of jobs: results, retries, dead letters, timeouts, cancellation. Rules 3, 9 and DESIGN section 6."""

import asyncio
import dataclasses
import math
import threading
from collections.abc import AsyncIterator
from datetime import date
from typing import Any

import pytest
from pydantic import BaseModel

from agentqueue import Agent, Backoff, Client, Context, Fatal, Retry
from agentqueue.clock import monotonic
from agentqueue.model.dead_letter import DeadLetterReason
from agentqueue.model.job import State
from agentqueue.store import Server, ServerOptions
from tests.support.workers import final, until, work_off, working

FAST = Backoff("fixed", delay=0.05, jitter=0.0)


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


class Trip(BaseModel):
    day: date
    seats: int = 1


@dataclasses.dataclass
class Quote:
    price: float
    day: date


# --- results


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        pytest.param({"a": [1, None, "ü"]}, {"a": [1, None, "ü"]}, id="plain-json"),
        pytest.param(Trip(day=date(2026, 5, 1)), {"day": "2026-05-01", "seats": 1}, id="pydantic-model"),
        pytest.param([Quote(1.5, date(2026, 5, 1))], [{"price": 1.5, "day": "2026-05-01"}], id="list-of-dataclasses"),
        pytest.param(None, None, id="nothing"),
    ],
)
async def test_what_a_handler_returns_is_the_result(client: Client, server_url: str, value: Any, seen: Any) -> None:
    agent = Agent("q")

    @agent.job
    async def give(ctx: Context) -> Any:
        return value

    job = await client.enqueue(give)
    await work_off(agent, server_url)
    assert await job.result() == seen
    status = await job.status()
    assert (status.state, status.attempts, status.deliveries) == (State.COMPLETED, 1, 1)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(math.nan, id="nan"),
        pytest.param(object(), id="object"),
        pytest.param("\ud800", id="surrogate"),
        pytest.param("x" * 1_100_000, id="too-large"),
    ],
)
async def test_a_result_that_cant_be_kept_is_dead_at_once_and_says_why(
    client: Client, server_url: str, value: Any
) -> None:
    agent, runs = Agent("q"), []

    @agent.job
    async def give(ctx: Context) -> Any:
        runs.append(ctx.attempt)
        return value

    job = await client.enqueue(give)
    await work_off(agent, server_url)
    status = await job.status()
    assert status.state is State.DEAD
    assert "result" in (status.error or "")
    assert runs == [1], "the handler's effects are not repeated"


async def test_keep_result_zero_keeps_none_and_infinity_keeps_it_for_ever(client: Client, server_url: str) -> None:
    agent = Agent("q")

    @agent.job(keep_result=0)
    async def forget(ctx: Context) -> int:
        return 1

    @agent.job(keep_result=math.inf)
    async def remember(ctx: Context) -> int:
        return 2

    gone, kept = await client.enqueue(forget), await client.enqueue(remember)
    await work_off(agent, server_url)
    async with Server(ServerOptions(server_url)) as server:
        assert await server.redis.exists(f"arq:result:{gone.id}") == 0
        assert await server.redis.pttl(f"arq:result:{kept.id}") == -1


async def test_a_plain_function_runs_in_a_thread_and_may_use_its_context(client: Client, server_url: str) -> None:
    agent, seen = Agent("q"), {}

    @agent.job
    def compute(ctx: Context, n: int) -> int:
        seen["thread"] = threading.get_ident()
        ctx.progress(50, "half")
        ctx.checkpoint({"n": n})
        ctx.enqueue(("other", "next"), n)
        return n * 2

    job = await client.enqueue(compute, 21)
    await work_off(agent, server_url)
    assert await job.result() == 42
    assert seen["thread"] != threading.get_ident()
    progress = (await job.status()).progress
    assert progress is not None
    assert progress.percent == 50
    assert (await client.stats("other")).waiting == 1


async def test_startup_opens_what_handlers_share_and_shutdown_closes_it(client: Client, server_url: str) -> None:
    agent, order = Agent("q"), []

    @agent.startup
    async def open_(ctx: Any) -> None:
        ctx.state.rate = 7
        order.append("open")

    @agent.shutdown
    def close(ctx: Any) -> None:
        order.append(f"close {ctx.state.rate}")

    @agent.job
    async def use(ctx: Context) -> int:
        order.append("job")
        return int(ctx.state.rate)

    job = await client.enqueue(use)
    await work_off(agent, server_url)
    assert await job.result() == 7
    assert order == ["open", "job", "close 7"]


# --- failures


async def test_a_failed_attempt_is_tried_again_after_a_doubling_delay(client: Client, server_url: str) -> None:
    agent, starts = Agent("q"), []

    @agent.job(attempts=3, backoff=Backoff("exponential", delay=0.1, jitter=0.0))
    async def flaky(ctx: Context) -> str:
        starts.append((ctx.attempt, ctx.delivery, monotonic()))
        if ctx.attempt < 3:
            raise ConnectionError(f"no luck {ctx.attempt}")
        return "done"

    job = await client.enqueue(flaky)
    async with working(agent, server_url):
        status = await final(job)
    assert (status.state, status.result, status.attempts, status.deliveries) == (State.COMPLETED, "done", 3, 3)
    assert [start[:2] for start in starts] == [(1, 1), (2, 2), (3, 3)]
    first, second = starts[1][2] - starts[0][2], starts[2][2] - starts[1][2]
    assert 0.1 <= first < 0.2 <= second < 0.35


async def test_when_attempts_are_used_up_the_job_is_a_dead_letter_with_every_error(
    client: Client, server_url: str
) -> None:
    agent = Agent("q")

    @agent.job(attempts=3, backoff=FAST)
    async def broken(ctx: Context, airport: str) -> None:
        raise LookupError(f"no airport {airport!r}, attempt {ctx.attempt}")

    job = await client.enqueue(broken, "XYZ", tags=["acme"])
    async with working(agent, server_url):
        status = await final(job)
    assert (status.state, status.attempts) == (State.DEAD, 3)
    letter = await client.dead_letter(job.id)
    assert letter.reason is DeadLetterReason.FAILED
    assert [error.message for error in letter.errors] == [f"no airport 'XYZ', attempt {n}" for n in (1, 2, 3)]
    assert (letter.data, list(letter.tags), letter.attempts) == ("XYZ", ["acme"], 3)
    traceback = letter.errors[-1].traceback
    assert "in broken" in traceback
    assert "agentqueue_worker" not in traceback, "the handler's own frames only"


async def test_a_jobs_own_options_go_over_the_handlers(client: Client, server_url: str) -> None:
    agent, starts = Agent("q"), []

    @agent.job(attempts=5, timeout=60, backoff=Backoff("fixed", delay=30))
    async def stuck(ctx: Context) -> None:
        starts.append(ctx.attempt)
        await asyncio.sleep(60)

    job = await client.enqueue(
        stuck, attempts=2, timeout=0.05, backoff={"type": "fixed", "delaySeconds": 0.05, "jitter": 0}
    )
    async with working(agent, server_url):
        status = await final(job)
    assert starts == [1, 2]
    assert status.error == "TimeoutError: the job took longer than its timeout of 0.05 s"


async def test_retry_asks_for_another_attempt_after_its_own_delay(client: Client, server_url: str) -> None:
    agent, starts = Agent("q"), []

    @agent.job(attempts=2, backoff=Backoff("fixed", delay=30))
    async def later(ctx: Context) -> int:
        starts.append(monotonic())
        if ctx.attempt == 1:
            raise Retry(after=0.2)
        return ctx.attempt

    job = await client.enqueue(later)
    async with working(agent, server_url):
        assert (await final(job)).result == 2
    assert 0.2 <= starts[1] - starts[0] < 0.5


async def test_fatal_goes_straight_to_the_dead_letters(client: Client, server_url: str) -> None:
    agent, runs = Agent("q"), []

    @agent.job(attempts=9)
    async def hopeless(ctx: Context) -> None:
        runs.append(ctx.attempt)
        raise Fatal("unknown airport XYZ")

    job = await client.enqueue(hopeless)
    await work_off(agent, server_url)
    letter = await client.dead_letter(job.id)
    assert (letter.reason, letter.error, runs) == (DeadLetterReason.FATAL, "Fatal: unknown airport XYZ", [1])


async def in_a_group(*raised: BaseException) -> None:
    """Tasks of one TaskGroup, which all fail."""

    async def fail(exc: BaseException) -> None:
        raise exc

    async with asyncio.TaskGroup() as group:
        for exc in raised:
            group.create_task(fail(exc))


async def test_fatal_in_a_task_group_goes_straight_to_the_dead_letters(client: Client, server_url: str) -> None:
    agent, runs = Agent("q"), []

    @agent.job(attempts=9)
    async def hopeless(ctx: Context) -> None:
        runs.append(ctx.attempt)
        await in_a_group(Fatal("unknown airport XYZ"), Fatal("unknown airport ABC"))

    job = await client.enqueue(hopeless)
    await work_off(agent, server_url)
    letter = await client.dead_letter(job.id)
    error = "ExceptionGroup: Fatal: unknown airport ABC; Fatal: unknown airport XYZ"
    assert (letter.reason, letter.error, runs) == (DeadLetterReason.FATAL, error, [1])
    assert "Exception Group Traceback" in letter.errors[-1].traceback


async def test_retry_in_a_task_group_waits_as_it_asks(client: Client, server_url: str) -> None:
    agent, starts = Agent("q"), []

    @agent.job(attempts=2, backoff=Backoff("fixed", delay=30))
    async def later(ctx: Context) -> int:
        starts.append(monotonic())
        if ctx.attempt == 1:
            await in_a_group(Retry(after=0.1), ValueError("another"), Retry(after=0.2))
        return ctx.attempt

    job = await client.enqueue(later)
    async with working(agent, server_url):
        assert (await final(job)).result == 2
    assert starts[1] - starts[0] >= 0.2


async def test_three_causes_in_task_groups_are_three_kinds_of_dead_letters(client: Client, server_url: str) -> None:
    agent = Agent("q")
    causes = (ConnectionError("refused"), LookupError("no airport 'XYZ'"), PermissionError("token expired"))

    @agent.job(attempts=1)
    async def search(ctx: Context, cause: int) -> None:
        await in_a_group(causes[cause])

    for number in range(6):
        await client.enqueue(search, number % 3)
    await work_off(agent, server_url)
    groups = await client.dead_groups("q")
    assert sorted((group.newest.error, group.count) for group in groups) == [
        ("ConnectionError: refused", 2),
        ("LookupError: no airport 'XYZ'", 2),
        ("PermissionError: token expired", 2),
    ]


class Spiteful(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    ("raised", "kind"),
    [
        pytest.param(SystemExit(3), "SystemExit", id="sys-exit"),
        pytest.param(KeyboardInterrupt(), "KeyboardInterrupt", id="keyboard-interrupt"),
        pytest.param(asyncio.CancelledError(), "CancelledError", id="cancelled-by-itself"),
        pytest.param(StopIteration("x"), "RuntimeError", id="stop-iteration"),
        pytest.param(Spiteful(), "Spiteful", id="text-that-raises"),
        pytest.param(ValueError("\udcff" * 10, {1}), "ValueError", id="text-that-is-not-utf-8"),
        pytest.param(ValueError("x" * 3_000_000), "ValueError", id="3-mb-of-text"),
    ],
)
async def test_whatever_a_handler_raises_ends_its_job_alone(
    client: Client, server_url: str, raised: BaseException, kind: str
) -> None:
    agent = Agent("q")

    @agent.job(attempts=1)
    async def bad(ctx: Context) -> None:
        raise raised

    @agent.job
    async def good(ctx: Context) -> int:
        return 1

    first = await client.enqueue(bad)
    second = await client.enqueue(good)
    await work_off(agent, server_url, concurrency=1)
    status = await first.status()
    assert status.state is State.DEAD
    assert (status.error or "").startswith(kind)
    assert await second.result() == 1


async def test_a_dead_letter_sends_a_job_to_the_agent_that_asked_for_it(client: Client, server_url: str) -> None:
    agent, monitor, letters = Agent("q"), Agent("error-monitor"), []

    @agent.job(attempts=1)
    async def broken(ctx: Context, n: int) -> None:
        raise ValueError("no")

    @monitor.job(name="dead-letter")
    async def note(ctx: Context, letter: dict[str, Any]) -> None:
        letters.append(letter)
        raise Fatal("the monitor is broken too")

    job = await client.enqueue(broken, 5)
    await work_off(agent, server_url, on_dead_letter_queue="error-monitor")
    await work_off(monitor, server_url, on_dead_letter_queue="q")
    (letter,) = letters
    assert (letter["id"], letter["queue"], letter["name"], letter["data"]) == (job.id, "q", "broken", 5)
    assert letter["reason"] == "failed"
    assert letter["errors"][0]["message"] == "no"
    stats = await client.stats("error-monitor")
    assert (stats.dead, stats.waiting, stats.delayed) == (1, 0, 0), "its own death sends no further job"
    assert (await client.stats("q")).waiting == 0, "no further job to its own dead letter queue either"


async def test_a_replayed_dead_letter_runs_with_its_attempts_counted_anew(client: Client, server_url: str) -> None:
    agent, fail = Agent("q"), [True]

    @agent.job(attempts=1)
    async def maybe(ctx: Context) -> int:
        if fail[0]:
            raise ValueError("no")
        return ctx.attempt

    job = await client.enqueue(maybe)
    await work_off(agent, server_url)
    assert (await job.status()).state is State.DEAD
    fail[0] = False
    await client.replay("q", ids=[job.id])
    await work_off(agent, server_url)
    assert await job.result() == 1


# --- timeouts and cancellation


async def test_a_job_that_takes_too_long_is_cancelled_and_tried_again(client: Client, server_url: str) -> None:
    agent, ends = Agent("q"), []

    @agent.job(timeout=0.1, attempts=2, backoff=FAST)
    async def slow(ctx: Context) -> str:
        if ctx.attempt == 2:
            return "quick this time"
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            ends.append(ctx.should_yield)
            raise
        return "never"

    job = await client.enqueue(slow)
    async with working(agent, server_url):
        status = await final(job)
    assert (status.result, status.attempts, ends) == ("quick this time", 2, [True])


async def test_a_thread_that_takes_too_long_fails_at_once_and_keeps_its_slot_until_it_ends(
    client: Client, server_url: str
) -> None:
    agent, go = Agent("q"), threading.Event()

    @agent.job(timeout=0.1, attempts=1)
    def hang(ctx: Context) -> None:
        go.wait(10)

    @agent.job
    async def quick(ctx: Context) -> int:
        return 1

    job = await client.enqueue(hang)
    async with working(agent, server_url, concurrency=1) as worker:
        assert (await final(job)).state is State.DEAD
        assert (worker.state.orphaned_threads, worker.state.want) == (1, 0)
        second = await client.enqueue(quick)
        go.set()
        assert (await final(second)).result == 1


async def test_a_running_job_is_cancelled_on_request(client: Client, server_url: str) -> None:
    agent, started, ended = Agent("q"), asyncio.Event(), asyncio.Event()

    @agent.job
    async def long(ctx: Context) -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        finally:
            ended.set()

    job = await client.enqueue(long)
    async with working(agent, server_url):
        await started.wait()
        asked = monotonic()
        await job.cancel()
        status = await final(job)
        assert monotonic() - asked < 1.5, "seen by the next look at the queue, 0.5 s"
    assert status.state is State.CANCELLED
    assert ended.is_set()


async def test_a_job_cancelled_through_arq_before_it_started_never_runs(client: Client, server_url: str) -> None:
    agent, runs = Agent("q"), []

    @agent.job
    async def never(ctx: Context) -> None:
        runs.append(1)

    job = await client.enqueue(never)
    async with Server(ServerOptions(server_url)) as server:  # arq's abort() of a job that waits
        await server.redis.zadd("arq:abort", {job.id: 1})
    await work_off(agent, server_url)
    assert (await job.status()).state is State.CANCELLED
    assert runs == []


async def test_a_result_that_comes_despite_the_cancellation_counts(client: Client, server_url: str) -> None:
    agent, started = Agent("q"), asyncio.Event()

    @agent.job
    async def stubborn(ctx: Context) -> str:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "finished anyway"
        return "never"

    job = await client.enqueue(stubborn)
    async with working(agent, server_url):
        await started.wait()
        await job.cancel()
        status = await final(job)
    assert (status.state, status.result) == (State.COMPLETED, "finished anyway")


async def test_the_worker_shows_progress_while_the_job_runs(client: Client, server_url: str) -> None:
    agent, go = Agent("q"), asyncio.Event()

    @agent.job
    async def report(ctx: Context) -> None:
        for percent in range(0, 101, 10):
            await ctx.progress(percent, f"step {percent}")
        await go.wait()

    job = await client.enqueue(report)
    async with working(agent, server_url):

        async def shown() -> bool:
            progress = (await job.status()).progress
            return progress is not None and progress.percent == 100

        await until(shown, what="100 % is shown")
        assert (await job.status()).state is State.ACTIVE
        go.set()
        progress = (await final(job)).progress
        assert progress is not None
        assert progress.message == "step 100"
