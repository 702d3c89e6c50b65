"""Steps: each runs once, and its value comes from the journal when the job runs again. Rule 13."""

import asyncio
import json
import re
import threading
from collections.abc import AsyncIterator, Callable
from datetime import date, timedelta
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from agentqueue import (
    Agent,
    Backoff,
    Client,
    Context,
    DurableError,
    Fatal,
    NotDone,
    OutcomeUnknown,
    Retry,
    StepFailed,
    step,
)
from agentqueue.cli.main import run as run_command
from agentqueue.client import JobStatus
from agentqueue.errors import NotFound, UsageError
from agentqueue.model.dead_letter import DeadLetterReason
from agentqueue.model.job import State
from agentqueue.model.journal import idempotency_key
from agentqueue.store import Server
from tests.support.replies import field
from tests.support.workers import final, until, work_off, working

FAST = Backoff("fixed", delay=0.05, jitter=0.0)


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


Run = Callable[..., Any]


@pytest.fixture
def run(client: Client, server_url: str) -> Run:
    """Run one job with a handler, until it is final, and return its status."""

    async def run_job(handler: Callable[..., Any], *data: Any, attempts: int = 3, **settings: Any) -> JobStatus:
        agent = Agent("q")
        agent.job(name="job", attempts=attempts, backoff=FAST)(handler)
        job = await client.enqueue("q", "job", *data, id="the-job")
        async with working(agent, server_url, **settings):
            return await final(job)

    return run_job


def error_of(status: JobStatus) -> str:
    assert status.state is State.DEAD
    assert status.error is not None
    return status.error


class Plan(BaseModel):
    queries: list[str]
    due: date | None = None


# --- values


async def test_a_step_runs_once_over_failed_attempts(run: Run, server: Server) -> None:
    calls = []

    async def plan(topic: str) -> list[str]:
        calls.append(topic)
        return [topic, "and more"]

    def write(parts: list[str], end: str) -> str:
        calls.append("write")
        return " ".join(parts) + end

    async def research(ctx: Context, topic: str) -> str:
        parts = await ctx.step("plan", plan, topic)
        if ctx.attempt == 1:
            raise ConnectionError("cut off")
        text = await ctx.step("write", write, parts, end=".")
        if ctx.attempt == 2:
            raise ConnectionError("cut off")
        return text

    assert (await run(research, "sea")).result == "sea and more."
    assert calls == ["sea", "write"]
    assert await server.redis.keys("aq:journal:*") == await server.redis.keys("aq:meta:*") == []


async def test_the_first_run_and_a_replay_get_the_same_value(run: Run) -> None:
    seen: list[Any] = []

    async def plan() -> Plan:
        return Plan(queries=["a"], due=date(2026, 1, 2))

    async def as_dict() -> Plan:
        return {"queries": ["b"]}  # type: ignore[return-value]

    async def untyped() -> Any:
        return Plan(queries=["c"]), {"a": timedelta(seconds=1)}

    async def nothing() -> None: ...

    async def handler(ctx: Context) -> None:
        values = [await ctx.step("plan", plan), await ctx.step("dict", as_dict), await ctx.step("untyped", untyped)]
        seen.append([*values, await ctx.step("nothing", nothing), await ctx.step("number", lambda: 1.5)])
        if ctx.attempt == 1:
            raise ConnectionError

    assert (await run(handler)).state is State.COMPLETED
    assert seen[0] == seen[1]
    assert seen[0] == [
        Plan(queries=["a"], due=date(2026, 1, 2)),
        Plan(queries=["b"]),
        [{"queries": ["c"], "due": None}, {"a": "PT1S"}],
        None,
        1.5,
    ]


class Handle:
    """An object that is not JSON."""


async def wrong_type() -> int:
    return "no number"  # type: ignore[return-value]


async def secret() -> SecretStr:
    return SecretStr("hidden")


async def large() -> str:
    return "x" * 1_100_000


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        (Handle, r'DurableError: the value of step "s#1" is of the type Handle, not JSON'),
        (lambda: [float("nan")], r'DurableError: the value of step "s#1": \[0\] is nan'),
        (wrong_type, r'DurableError: the value of step "s#1" does not fit the return annotation int: .*valid integer'),
        (secret, r'DurableError: the value of step "s#1" holds a secret'),
        (
            large,
            r'DurableError: the value of step "s#1" has 1,100,002 bytes, over the limit of 1,048,576; store the bulk',
        ),
    ],
    ids=["object", "nan", "annotation", "secret", "large"],
)
async def test_a_value_that_can_not_be_kept_is_fatal_at_once(run: Run, function: Any, problem: str) -> None:
    async def handler(ctx: Context) -> None:
        await ctx.step("s", function)

    status = await run(handler)
    assert status.attempts == 1
    assert re.search(problem, error_of(status))


async def test_a_recorded_value_that_no_longer_fits_is_a_named_error(run: Run) -> None:
    async def old() -> dict[str, int]:
        return {"pages": 3}

    async def new() -> Plan:
        raise AssertionError("it is recorded")

    async def handler(ctx: Context) -> None:
        await ctx.step("plan", old if ctx.attempt == 1 else new)
        raise ConnectionError

    assert 'step "plan#1": the recorded value no longer fits Plan: queries: Field required' in error_of(
        await run(handler)
    )


async def test_other_arguments_under_a_known_name_are_a_named_error(run: Run) -> None:
    async def fetch(item: str) -> str:
        return item

    async def handler(ctx: Context) -> None:
        for item in ("a", "b") if ctx.attempt == 1 else ("b", "c"):
            await ctx.step("fetch", fetch, item)
        raise ConnectionError

    status = await run(handler)
    assert status.attempts == 2
    assert 'step "fetch#1" has other arguments than in delivery 1' in error_of(status)


async def test_a_key_keeps_items_apart_whatever_their_order(run: Run) -> None:
    got, calls = [], []

    async def fetch(item: str) -> str:
        calls.append(item)
        return item.upper()

    async def handler(ctx: Context) -> None:
        items = ("a", "b") if ctx.attempt == 1 else ("b", "c", "a")
        got.append([await ctx.step("fetch", fetch, item, key=item) for item in items])
        if ctx.attempt == 1:
            raise ConnectionError

    assert (await run(handler)).state is State.COMPLETED
    assert (got, calls) == ([["A", "B"], ["B", "C", "A"]], ["a", "b", "c"])


# --- names


async def test_calls_of_one_name_that_one_task_makes_are_numbered_by_their_order(run: Run) -> None:
    async def later(seconds: float) -> float:
        await asyncio.sleep(seconds)
        return seconds

    async def handler(ctx: Context) -> list[float]:
        values = await asyncio.gather(*[ctx.step("wait", later, 0.02 / n) for n in (1, 2, 3)])
        if ctx.attempt == 1:
            raise ConnectionError
        return values

    assert (await run(handler)).result == [0.02, 0.01, 0.02 / 3]


async def test_a_name_that_two_tasks_use_is_refused_with_advice(run: Run) -> None:
    async def branch(ctx: Context) -> None:
        await ctx.step("fetch", asyncio.sleep, 0)

    async def handler(ctx: Context) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(branch(ctx))
            group.create_task(branch(ctx))

    status = await run(handler)
    assert status.attempts == 1
    assert 'step "fetch" is called from two tasks' in error_of(status)
    assert "give each call a key=" in error_of(status)


@pytest.mark.parametrize("name", ["", "a b", "a#1", "a/b", 7, "x" * 101])
async def test_a_step_name_is_checked(run: Run, name: Any) -> None:
    async def handler(ctx: Context) -> None:
        await ctx.step(name, asyncio.sleep, 0)

    assert "must have 1 to 100 characters" in error_of(await run(handler))


# --- where steps may not be


async def test_a_durable_call_inside_a_step_is_refused(run: Run) -> None:
    async def handler(ctx: Context) -> None:
        async def outer() -> None:
            await ctx.step("inner", asyncio.sleep, 0)

        await ctx.step("outer", outer)

    assert 'step "outer#1" calls its job\'s context' in error_of(await run(handler))


async def test_a_context_refuses_calls_once_its_job_has_ended(run: Run) -> None:
    kept: list[Context] = []

    async def handler(ctx: Context) -> None:
        kept.append(ctx)

    await run(handler)
    with pytest.raises(UsageError, match="job the-job has ended"):
        kept[0].step("late", asyncio.sleep, 0)
    with pytest.raises(UsageError, match="job the-job has ended"):
        kept[0].checkpoint(1)


async def test_a_task_that_outlives_its_job_can_not_take_part_in_the_next_run(run: Run) -> None:
    problems: list[BaseException] = []
    go, done = asyncio.Event(), asyncio.Event()

    async def straggler(ctx: Context) -> None:
        await go.wait()
        try:
            await ctx.step("late", asyncio.sleep, 0)
        except DurableError as exc:
            problems.append(exc)
        done.set()

    async def handler(ctx: Context) -> None:
        if ctx.attempt == 1:
            straggling.append(asyncio.create_task(straggler(ctx)))
            raise ConnectionError
        go.set()
        await done.wait()

    straggling: list[asyncio.Task[None]] = []
    assert (await run(handler)).state is State.COMPLETED
    assert len(problems) == 1


async def test_a_foreign_thread_is_refused(run: Run) -> None:
    async def handler(ctx: Context) -> None:
        await asyncio.to_thread(ctx.step, "s", asyncio.sleep, 0)

    assert "is used in another thread than the handler's" in error_of(await run(handler))


# --- functions


async def test_plain_handlers_call_steps_that_wait(run: Run) -> None:
    def fetch(number: int) -> int:
        return number + 1

    async def fetch_async(number: int) -> int:
        await asyncio.sleep(0)
        return number * 2

    def handler(ctx: Context) -> list[int]:
        first: Any = ctx.step("one", fetch, 1)
        second: Any = ctx.step("two", fetch_async, first)
        if ctx.attempt == 1:
            raise ConnectionError
        return [first, second]

    assert (await run(handler)).result == [2, 4]


async def test_plain_steps_do_not_need_the_threads_of_plain_handlers(client: Client, server_url: str) -> None:
    agent = Agent("q")

    @agent.job(timeout=10)
    def handler(ctx: Context) -> str:
        name: Any = ctx.step("name", lambda: threading.current_thread().name)
        return str(name)

    jobs = [await client.enqueue(handler) for _ in range(6)]
    async with working(agent, server_url, concurrency=2):
        results = [(await final(job)).result for job in jobs]
    assert all(str(name).startswith("step") for name in results)


async def test_a_decorated_function_is_called_as_a_step(run: Run) -> None:
    keys = []

    @step
    async def book(flight: str, *, seats: int) -> str:
        return f"{flight}:{seats}"

    async def handler(ctx: Context) -> str:
        @step(name="pay", once=True)
        def pay(price: int) -> int:
            keys.append(ctx.idempotency_key)
            return price

        return f"{await book(ctx, 'LH1', seats=2)} {await pay(ctx, 7)}"

    assert (await run(handler)).result == "LH1:2 7"
    assert keys == [idempotency_key("the-job", "pay#1")]


async def test_the_idempotency_key_is_the_same_in_every_run_and_unknown_outside_of_steps(run: Run) -> None:
    keys = []

    async def handler(ctx: Context) -> None:
        async def send() -> None:
            keys.append(ctx.idempotency_key)
            if ctx.attempt == 1:
                raise ConnectionError

        with pytest.raises(UsageError, match="inside a step only"):
            _ = ctx.idempotency_key
        await ctx.step("send", send, key="ana@example.org")

    await run(handler)
    assert keys == [idempotency_key("the-job", "send/ana@example.org#1")] * 2


# --- steps that fail


async def test_a_step_is_tried_again_in_place_without_an_attempt_of_the_job(run: Run) -> None:
    calls = []

    async def flaky() -> str:
        calls.append(1)
        if len(calls) == 2:
            raise Retry(after=0.01)
        if len(calls) < 4:
            raise ConnectionError("cut off")
        return "there"

    async def handler(ctx: Context) -> str:
        return await ctx.step("flaky", flaky, attempts=4, backoff=0.01)

    status = await run(handler, attempts=1)
    assert (status.result, status.attempts, len(calls)) == ("there", 1, 4)


async def test_a_step_that_failed_runs_again_with_the_next_attempt(run: Run, server: Server) -> None:
    entries: list[bytes | None] = []

    async def handler(ctx: Context) -> str:
        async def fetch() -> str:
            if ctx.attempt == 1:
                raise ConnectionError("cut off")
            entries.append(await field(server.redis, "aq:journal:the-job", "step:fetch#1"))
            return "there"

        return await ctx.step("fetch", fetch)

    assert (await run(handler)).result == "there"
    assert entries[0] is not None
    assert b'"is":"failed"' in entries[0]
    assert b'{"type":"ConnectionError","message":"cut off"}' in entries[0]


async def test_a_steps_own_timeout_ends_its_call(run: Run) -> None:
    async def handler(ctx: Context) -> None:
        await ctx.step("slow", asyncio.sleep, 30, timeout=0.02)

    assert error_of(await run(handler, attempts=1)) == (
        'TimeoutError: step "slow#1" took longer than its timeout of 0.02 s'
    )


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"timeout": 0}, "`timeout` must be a number of seconds"),
        ({"attempts": 0}, "`attempts` must be a whole number"),
        ({"backoff": "soon"}, "`backoff` must be"),
        ({"key": ""}, "its key '' must have 1 to 200 printable characters"),
        ({"key": "x" * 201}, "must have 1 to 200 printable characters"),
        ({"key": "a\nb"}, "must have 1 to 200 printable characters"),
        ({"key": "\ud800"}, r"its key '\ud800' must have 1 to 200 printable characters"),
        ({"once": True, "attempts": 2}, "exclude each other"),
        ({"verify": asyncio.sleep}, "goes with once=True only"),
    ],
)
async def test_an_options_mistake_is_fatal_at_once(run: Run, options: Any, problem: str) -> None:
    async def handler(ctx: Context) -> None:
        await ctx.step("s", lambda: 1, **options)

    status = await run(handler)
    assert status.attempts == 1
    assert problem in error_of(status)


async def test_a_call_in_place_of_a_function_is_refused(run: Run) -> None:
    async def handler(ctx: Context) -> None:
        coroutine: Any = asyncio.sleep(0)
        try:
            await ctx.step("s", coroutine)
        finally:
            coroutine.close()

    assert "needs a function, not <coroutine" in error_of(await run(handler))


# --- once


async def test_a_once_step_is_called_once_and_its_exception_is_its_outcome(run: Run) -> None:
    calls, seen = [], []

    class CardDeclined(Exception):
        pass

    async def pay() -> None:
        calls.append(1)
        raise CardDeclined("no money")

    async def handler(ctx: Context) -> str:
        try:
            await ctx.step("pay", pay, once=True)
        except StepFailed as exc:
            seen.append((exc.step, exc.type, exc.message))
            if ctx.attempt == 1:
                raise ConnectionError from exc
            return "unpaid"
        return "paid"

    assert (await run(handler)).result == "unpaid"
    assert calls == [1]
    assert seen == [("pay#1", "CardDeclined", "no money")] * 2


@pytest.mark.parametrize("exception", [NotDone("not sent"), Retry(after=0.01)])
async def test_a_once_step_in_which_nothing_has_happened_is_called_again(run: Run, exception: Exception) -> None:
    calls = []

    async def pay() -> str:
        calls.append(1)
        if len(calls) == 1:
            raise exception
        return "paid"

    async def handler(ctx: Context) -> str:
        return await ctx.step("pay", pay, once=True)

    assert (await run(handler)).result == "paid"
    assert len(calls) == 2


async def test_a_fatal_once_step_ends_the_job(run: Run, client: Client, server_url: str) -> None:
    calls = []

    async def pay() -> str:
        calls.append(1)
        raise Fatal("closed")

    async def handler(ctx: Context) -> str:
        return await ctx.step("pay", pay, once=True)

    assert error_of(await run(handler)) == "Fatal: closed"
    await client.replay("q", ids=["the-job"])
    agent = Agent("q")
    agent.job(name="job")(handler)
    await work_off(agent, server_url)
    assert error_of(await client.status("the-job")) == "Fatal: closed"
    assert calls == [1]


async def test_a_once_step_that_was_cut_off_is_not_called_again(
    client: Client, server_url: str, server: Server
) -> None:
    agent, calls = Agent("q"), []

    async def pay() -> str:
        calls.append(1)
        raise OutcomeUnknown("the provider did not answer")

    @agent.job(attempts=3, backoff=FAST)
    async def buy(ctx: Context) -> str:
        return await ctx.step("pay", pay, once=True)

    job = await client.enqueue(buy)
    await work_off(agent, server_url)
    for _ in range(2):
        status = await job.status()
        (letter,) = await client.dead_letters("q")
        assert letter.reason is DeadLetterReason.OUTCOME_UNKNOWN
        assert f"agentqueue resolve {job.id} pay#1" in error_of(status)
        assert len(calls) == 1
        await client.replay("q", ids=[job.id])
        await work_off(agent, server_url)


async def test_verify_finds_out_what_has_become_of_a_call(run: Run) -> None:
    asked, calls = [], []

    async def verify(key: str) -> Any:
        asked.append(key)
        if len(asked) == 1:
            raise ConnectionError("not now")
        return NotDone if len(asked) == 2 else "paid before"

    async def pay() -> str:
        calls.append(1)
        raise OutcomeUnknown

    async def handler(ctx: Context) -> str:
        return await ctx.step("pay", pay, once=True, verify=verify)

    assert (await run(handler, attempts=5)).result == "paid before"
    assert (len(calls), asked) == (2, [idempotency_key("the-job", "pay#1")] * 3)


async def test_a_once_step_ends_and_is_recorded_although_a_sibling_fails(run: Run) -> None:
    calls = []

    async def pay() -> str:
        await asyncio.sleep(0.05)
        calls.append(1)
        return "paid"

    async def fail() -> None:
        await asyncio.sleep(0.01)
        raise ConnectionError("cut off")

    async def handler(ctx: Context) -> str:
        if ctx.attempt == 1:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail())
                group.create_task(_awaited(ctx.step("pay", pay, once=True)))
        return await ctx.step("pay", pay, once=True)

    async def _awaited(step: Any) -> None:
        await step

    assert (await run(handler)).result == "paid"
    assert calls == [1]


async def test_a_once_step_ends_and_is_recorded_in_a_drain(client: Client, server_url: str) -> None:
    agent, calls, started = Agent("q"), [], asyncio.Event()

    async def pay() -> str:
        started.set()
        await asyncio.sleep(0.1)
        calls.append(1)
        return "paid"

    @agent.job
    async def buy(ctx: Context) -> str:
        return await ctx.step("pay", pay, once=True)

    job = await client.enqueue(buy)
    async with working(agent, server_url) as worker:
        await started.wait()
        worker.stop(grace=0.0)
        await until(lambda: not worker.state.running, what="the job is released")
    assert (await job.status()).state is State.WAITING
    await work_off(agent, server_url)
    assert (await job.status()).result == "paid"
    assert calls == [1]


# --- drains


class Drained:
    """A worker that begins to drain in the middle of a step, with a long grace period, and a second one after it."""

    def __init__(self, client: Client, url: str) -> None:
        self.client, self.url, self.agent = client, url, Agent("q")
        self.calls: list[str] = []
        self.endings: list[str | None] = []
        self.begin: Callable[[], None] = lambda: None

    async def drain(self) -> str:
        """Begin the drain, in the first run."""
        self.calls.append("drain")
        self.begin()
        return "drained"

    async def call(self, name: str) -> str:
        self.calls.append(name)
        return name

    async def first_run(self, handler: Callable[..., Any]) -> JobStatus:
        """Return the status of the job once the first worker has nothing left to run."""
        self.agent.job(name="job", backoff=FAST)(handler)
        job = await self.client.enqueue("q", "job", id="the-job")
        async with working(self.agent, self.url) as worker:
            self.begin = lambda: worker.stop(grace=60.0)
            await until(lambda: worker.state.draining and not worker.state.running, what="nothing runs", deadline=10)
        return await job.status()

    async def second_run(self) -> Any:
        await work_off(self.agent, self.url)
        return (await self.client.status("the-job", queue="q")).result


@pytest.fixture
def drained(client: Client, server_url: str) -> Drained:
    return Drained(client, server_url)


async def test_a_run_ends_before_its_next_step_once_the_worker_drains(drained: Drained) -> None:
    async def handler(ctx: Context) -> list[str]:
        try:
            return [await ctx.step("drain", drained.drain), await ctx.step("next", drained.call, "next")]
        finally:
            drained.endings.append(ctx.ending)

    status = await drained.first_run(handler)
    assert (status.state, status.attempts, drained.calls) == (State.WAITING, 0, ["drain"])
    assert await drained.second_run() == ["drained", "next"]
    assert (drained.calls, drained.endings) == (["drain", "next"], ["draining", None])


async def test_a_plain_handler_ends_before_its_next_step_once_the_worker_drains(drained: Drained) -> None:
    def handler(ctx: Context) -> list[str]:
        try:
            return [ctx.step("drain", drained.drain), ctx.step("next", drained.call, "next")]  # type: ignore[list-item]
        finally:
            drained.endings.append(ctx.ending)

    assert (await drained.first_run(handler)).state is State.WAITING
    assert await drained.second_run() == ["drained", "next"]
    assert (drained.calls, drained.endings) == (["drain", "next"], ["draining", None])


async def test_a_handler_that_swallows_the_end_of_its_run_begins_no_step_while_the_worker_drains(
    drained: Drained,
) -> None:
    async def handler(ctx: Context) -> str:
        await ctx.step("drain", drained.drain)
        try:
            await ctx.step("next", drained.call, "next")
        except asyncio.CancelledError:
            await ctx.step("cleanup", drained.call, "cleanup")
        return "done"

    assert (await drained.first_run(handler)).state is State.WAITING
    assert await drained.second_run() == "done"
    assert drained.calls == ["drain", "next"]


async def test_replayed_steps_do_not_end_a_run_while_its_worker_drains(drained: Drained) -> None:
    async def handler(ctx: Context) -> list[str]:
        if ctx.attempt == 2:
            drained.begin()
        answers = [await ctx.step("first", drained.call, "first"), await ctx.step("second", drained.call, "second")]
        if ctx.attempt == 1:
            raise ConnectionError("cut off")
        return answers

    status = await drained.first_run(handler)
    assert status.result == ["first", "second"]
    assert drained.calls == ["first", "second"]


async def test_no_step_in_flight_is_cut_by_a_sibling_that_would_begin_while_the_worker_drains(
    drained: Drained,
) -> None:
    begun = asyncio.Event()

    async def slow() -> str:
        await begun.wait()
        return await drained.call("slow")

    async def sibling() -> str:
        begun.set()
        return await drained.call("sibling")

    async def branch(ctx: Context) -> list[str]:
        return [await ctx.step("drain", drained.drain), await ctx.step("sibling", sibling)]

    async def handler(ctx: Context) -> list[Any]:
        answers = await asyncio.gather(ctx.step("slow", slow), branch(ctx))
        return [*answers, await ctx.step("last", drained.call, "last")]

    assert (await drained.first_run(handler)).state is State.WAITING
    assert drained.calls == ["drain", "sibling", "slow"]
    assert await drained.second_run() == ["slow", ["drained", "sibling"], "last"]
    assert drained.calls == ["drain", "sibling", "slow", "last"]


async def test_a_busy_handler_begins_steps_while_its_worker_drains(drained: Drained) -> None:
    async def handler(ctx: Context) -> list[str]:
        async with ctx.busy():
            return [await ctx.step("drain", drained.drain), await ctx.step("next", drained.call, "next")]

    assert (await drained.first_run(handler)).result == ["drained", "next"]


# --- progress


async def test_attempts_count_without_progress(run: Run) -> None:
    async def handler(ctx: Context) -> str:
        for number in range(12):
            await ctx.step("turn", lambda: None)
            if ctx.attempt <= number:
                raise ConnectionError("one of the provider's 500s")
        return "done"

    status = await run(handler, attempts=3)
    assert (status.result, status.attempts) == ("done", 12)


async def test_a_job_that_stands_still_dies_after_its_attempts_without_progress(run: Run) -> None:
    async def handler(ctx: Context) -> None:
        await ctx.step("first", lambda: None)
        if ctx.attempt > 2:
            await ctx.step("second", lambda: None)
        raise ConnectionError

    assert (await run(handler, attempts=3)).attempts == 5


async def test_progress_has_a_total_bound(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agentqueue_worker.domain.retry.TOTAL_FACTOR", 3)

    async def handler(ctx: Context) -> None:
        for _ in range(ctx.attempt):
            await ctx.step("turn", lambda: None)
        raise ConnectionError

    assert (await run(handler, attempts=2)).attempts == 6


# --- replays


async def test_a_dead_letter_keeps_its_journal_and_a_replay_goes_on_after_the_last_good_step(
    client: Client, server_url: str, server: Server
) -> None:
    agent, calls = Agent("q"), []

    @agent.job
    async def book(ctx: Context) -> str:
        await ctx.step("search", lambda: calls.append("search"))
        await ctx.checkpoint({"page": 3})
        if len(calls) == 1:
            calls.append("dead")
            raise Fatal("no seat")
        return str(ctx.resume)

    job = await client.enqueue(book)
    await work_off(agent, server_url)
    assert (await job.status()).state is State.DEAD
    assert await server.redis.exists(f"aq:journal:{job.id}") == 1
    await client.replay("q", ids=[job.id])
    assert await field(server.redis, f"aq:meta:{job.id}", "journal") == b"1"
    await work_off(agent, server_url)
    assert (await job.status()).result == "{'page': 3}"
    assert calls == ["search", "dead"]
    assert await server.redis.exists(f"aq:journal:{job.id}") == 0


@pytest.fixture
async def dead_letter(client: Client, server_url: str) -> tuple[Agent, list[str]]:
    """A dead job with three steps, of which `two` was called twice, its agent, and the calls of its steps."""
    agent, calls = Agent("q"), list[str]()

    @agent.job(name="job")
    async def work(ctx: Context) -> str:
        for name in ("one", "two", "two", "three"):
            await ctx.step(name, calls.append, name)
        await ctx.checkpoint(1)
        if ctx.resume is None and len(calls) == 4:
            raise Fatal("no")
        return str(ctx.resume)

    await client.enqueue("q", "job", id="the-job")
    await work_off(agent, server_url)
    return agent, calls


@pytest.mark.parametrize(
    ("place", "again", "result"),
    [
        ({}, [], "1"),
        ({"from_start": True}, ["one", "two", "two", "three"], "None"),
        ({"from_step": "two"}, ["two", "two", "three"], "None"),
        ({"from_step": "two#2"}, ["two", "three"], "None"),
    ],
)
async def test_a_replay_runs_again_what_it_is_asked_to(
    dead_letter: tuple[Agent, list[str]], client: Client, server_url: str, *, place: Any, again: list[str], result: str
) -> None:
    agent, calls = dead_letter
    assert (await client.replay("q", "the-job", **place)).count == 1
    await work_off(agent, server_url)
    assert (await client.status("the-job")).result == result
    assert calls[4:] == again


async def test_a_replay_from_a_step_that_is_not_there_changes_nothing(
    dead_letter: tuple[Agent, list[str]], client: Client
) -> None:
    assert (await client.replay("q", "the-job", from_step="four")).no_step == ("the-job",)
    assert (await client.status("the-job")).state is State.DEAD
    with pytest.raises(UsageError, match="not both"):
        await client.replay("q", "the-job", from_step="one", from_start=True)


@pytest.mark.parametrize("forget", ["enqueue", "discard"])
async def test_an_id_that_is_used_again_does_not_inherit_the_journal(
    dead_letter: tuple[Agent, list[str]], client: Client, server_url: str, server: Server, forget: str
) -> None:
    agent, calls = dead_letter
    if forget == "discard":
        await client.discard("q", "the-job")
    else:
        await server.redis.delete("arq:result:the-job")  # its retention has passed
        await client.enqueue("q", "job", id="the-job")
    assert await server.redis.exists("aq:journal:the-job") == 0
    if forget == "enqueue":
        await work_off(agent, server_url)
        assert len(calls) == 8


# --- resolve


@pytest.fixture
async def unknown(client: Client, server_url: str) -> tuple[Agent, list[int]]:
    """A dead job whose payment was cut off, its agent, and the calls of the payment."""
    agent, calls = Agent("q"), list[int]()

    async def pay(price: int) -> str:
        calls.append(price)
        if len(calls) == 1:
            raise OutcomeUnknown("no answer")
        return "paid now"

    @agent.job(name="job")
    async def buy(ctx: Context) -> str:
        return await ctx.step("pay", pay, 7, once=True)

    await client.enqueue("q", "job", id="the-job")
    await work_off(agent, server_url)
    return agent, calls


async def test_a_person_says_what_the_step_has_returned(
    unknown: tuple[Agent, list[int]], client: Client, server_url: str
) -> None:
    await client.resolve("the-job", "pay", "paid before")
    await work_off(unknown[0], server_url)
    assert (await client.status("the-job")).result == "paid before"
    assert unknown[1] == [7]


async def test_a_person_says_that_nothing_has_happened(
    unknown: tuple[Agent, list[int]], client: Client, server_url: str
) -> None:
    await client.resolve("the-job", "pay#1", run_again=True)
    await work_off(unknown[0], server_url)
    assert (await client.status("the-job")).result == "paid now"
    assert unknown[1] == [7, 7]


async def test_a_wrong_resolution_changes_nothing(unknown: tuple[Agent, list[int]], client: Client) -> None:
    assert unknown[1] == [7]
    with pytest.raises(UsageError, match="the value that the step has returned, or run_again"):
        await client.resolve("the-job", "pay")
    with pytest.raises(NotFound, match="has no step 'book'"):
        await client.resolve("the-job", "book", 1)
    with pytest.raises(NotFound):
        await client.resolve("gone", "pay", 1)
    assert (await client.status("the-job")).state is State.DEAD


async def test_an_outcome_that_is_known_can_not_be_resolved(
    dead_letter: tuple[Agent, list[str]], client: Client
) -> None:
    assert len(dead_letter[1]) == 4
    with pytest.raises(UsageError, match="the outcome of step 'one' is known; nothing was changed"):
        await client.resolve("the-job", "one", 1)


# --- what people see


async def test_the_steps_of_a_job_are_seen_while_it_lives_when_it_is_dead_and_when_it_is_done(
    dead_letter: tuple[Agent, list[str]], client: Client, server_url: str
) -> None:
    labels = ["one#1", "three#1", "two#1", "two#2"]  # sorted, as steps may end in the same millisecond
    dead = await client.status("the-job")
    assert sorted((it.name, it.outcome, it.delivery) for it in dead.steps) == [(label, "done", 1) for label in labels]
    await client.replay("q", "the-job")
    assert sorted(it.name for it in (await client.status("the-job")).steps) == labels
    await work_off(dead_letter[0], server_url)
    done = await client.status("the-job")
    assert done.state is State.COMPLETED
    assert sorted(it.name for it in done.steps) == labels
    assert done.to_json()["steps"][0]["outcome"] == "done"


async def test_a_journal_that_another_program_has_overwritten_is_a_named_error_and_stays(
    run: Run, server: Server
) -> None:
    calls: list[int] = []

    async def handler(ctx: Context) -> None:
        await server.redis.set(f"aq:journal:{ctx.id}", "mine")
        await ctx.step("s", calls.append, 1)

    assert "aq:journal:the-job holds another Redis type, which AgentQueue did not write" in error_of(await run(handler))
    assert await server.redis.get("aq:journal:the-job") == b"mine"
    assert calls == []


async def test_an_entry_that_another_program_has_written_is_a_named_error(run: Run, server: Server) -> None:
    async def handler(ctx: Context) -> None:
        await server.redis.hset(f"aq:journal:{ctx.id}", "step:s#1", "mine")  # type: ignore[misc]  # redis-py's union
        await ctx.step("s", lambda: 1)

    assert "the journal of job the-job can't be read at step:s#1" in error_of(await run(handler))


# --- the fence


async def test_a_worker_that_lost_its_lease_adds_no_step(client: Client, server_url: str, server: Server) -> None:
    agent, stopped = Agent("q"), asyncio.Event()

    @agent.job
    async def robbed(ctx: Context) -> None:
        async def rob() -> str:
            await server.redis.set(f"arq:in-progress:{ctx.id}", "thief/1|3|1|1")
            return "stolen"

        try:
            await ctx.step("rob", rob)
        finally:
            stopped.set()

    job = await client.enqueue(robbed)
    async with working(agent, server_url):
        await stopped.wait()
    assert await server.redis.exists(f"aq:journal:{job.id}", f"arq:result:{job.id}") == 0


async def test_another_delivery_to_the_same_worker_is_another_delivery(
    client: Client, server_url: str, server: Server
) -> None:
    """The owner is the same, but the in-progress value has another time."""
    agent, stopped = Agent("q"), asyncio.Event()

    @agent.job
    async def overtaken(ctx: Context) -> None:
        async def overtake() -> str:
            value = await server.redis.get(f"arq:in-progress:{ctx.id}")
            head, _, claimed = value.decode().rpartition("|")
            await server.redis.set(f"arq:in-progress:{ctx.id}", f"{head}|{int(claimed) + 1}")
            return "old"

        try:
            await ctx.step("s", overtake)
        finally:
            stopped.set()

    job = await client.enqueue(overtaken)
    async with working(agent, server_url):
        await stopped.wait()
    assert await server.redis.exists(f"aq:journal:{job.id}") == 0


# --- costs


async def commands(server: Server) -> dict[str, int]:
    stats = await server.redis.info("commandstats")
    return {name.removeprefix("cmdstat_"): it["calls"] for name, it in stats.items()}


async def test_a_step_is_one_round_trip_of_four_commands(client: Client, server_url: str, server: Server) -> None:
    agent, counts = Agent("q"), list[dict[str, int]]()

    @agent.job
    async def turns(ctx: Context) -> None:
        await ctx.step("first", lambda: None)  # it also reads the journal
        before = await commands(server)
        for _ in range(200):
            await ctx.step("turn", lambda: None)
        after = await commands(server)
        counts.append({name: count - before.get(name, 0) for name, count in after.items()})

    await client.enqueue(turns)
    await work_off(agent, server_url)
    frequent = {name: round(count / 200) for name, count in counts[0].items() if count >= 100}
    assert frequent == {"evalsha": 1, "time": 1, "mget": 1, "hsetnx": 1}


async def test_the_command_line_replays_from_a_step_and_resolves(
    unknown: tuple[Agent, list[int]], client: Client, server_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    async def cli(*words: str) -> tuple[int, str]:
        code = await asyncio.to_thread(run_command, [*words, "--redis", server_url])
        out = capsys.readouterr()
        return code, out.out + out.err

    assert "has no step four in its journal" in (await cli("dead", "replay", "q", "the-job", "--from-step", "four"))[1]
    assert "pay#1: intent" in (await cli("status", "the-job"))[1]
    code, text = await cli("resolve", "the-job", "pay#1")
    assert (code, "or --run-again" in text) == (2, True)
    code, text = await cli("resolve", "the-job", "pay#1", "--value", "{nonsense")
    assert (code, "--value" in text) == (2, True)
    code, text = await cli("resolve", "the-job", "pay#1", "--value", '"by transfer"', "--json")
    assert (code, json.loads(text)) == (0, {"id": "the-job", "step": "pay#1", "outcome": "replayed"})
    await work_off(unknown[0], server_url)
    assert (await client.status("the-job")).result == "by transfer"
