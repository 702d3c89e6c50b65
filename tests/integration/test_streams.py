"""Streams: what a job emits reaches every reader once, whenever it comes and however often the job runs. Rule 15."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from agentqueue import Agent, Backoff, Client, Context, DurableError, Fatal, Retry, StepFailed, SyncClient
from agentqueue.client import Job, JobStatus
from agentqueue.errors import InvalidPayload, JobNotFound, UsageError
from agentqueue.model.job import State
from agentqueue.model.stream import MAX_EVENT_BYTES, MAX_EVENTS
from agentqueue.store import Server, ServerOptions
from agentqueue.testing import Sandbox, context
from tests.support.servers import RunningServer
from tests.support.streams import Page, read_all, read_some
from tests.support.workers import final, until, work_off, worker_for, working

SOON = Backoff("fixed", delay=0.05, jitter=0.0)


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


Run = Callable[..., Any]


@pytest.fixture
def run(client: Client, server_url: str) -> Run:
    """Run one job with a handler beside a reader from the start. Return its status and what the reader shows."""

    async def run_job(handler: Callable[..., Any], *data: Any, attempts: int = 3) -> tuple[JobStatus, Page]:
        agent = Agent("q")
        agent.job(name="job", attempts=attempts, backoff=SOON)(handler)
        job = await client.enqueue("q", "job", *data, id="the-job")
        reading = asyncio.create_task(read_all(client, job))
        async with working(agent, server_url):
            status = await final(job)
            page = await reading
        late = await read_all(client, job)
        assert (late.pieces, late.end, late.rewinds) == (page.pieces, page.end, [])
        return status, page

    return run_job


# --- readers


async def test_readers_before_during_and_after_the_run_get_everything(client: Client, server_url: str) -> None:
    agent, go, under_way = Agent("q"), asyncio.Event(), asyncio.Event()

    @agent.job
    async def talk(ctx: Context) -> None:
        await ctx.emit("a")
        under_way.set()
        await go.wait()
        await ctx.emit({"b": [1, None, "ü"]})

    job = await client.enqueue(talk)
    before = asyncio.create_task(read_all(client, job))
    async with working(agent, server_url):
        await under_way.wait()
        during = asyncio.create_task(read_all(client, job))
        first = Page()
        await read_some(client, job, first, 1)
        assert first.pieces == ["a"]
        go.set()
        pages = [
            await before,
            await during,
            await read_all(client, job),
            await read_all(client, job, first, after=first.last_id),
        ]
    assert [(page.pieces, page.end) for page in pages] == [(["a", {"b": [1, None, "ü"]}], "completed")] * 4
    assert await read_some_data(client, job, pages[0].last_id) == []


async def read_some_data(client: Client, job: Job[Any], after: str | None) -> list[Any]:
    return (await read_all(client, job, after=after)).pieces


async def test_an_event_arrives_while_the_job_runs(client: Client, server_url: str) -> None:
    agent, go = Agent("q"), asyncio.Event()

    @agent.job
    async def talk(ctx: Context) -> None:
        await ctx.emit("a")
        await go.wait()

    job = await client.enqueue(talk)
    async with working(agent, server_url):
        page = Page()
        await asyncio.wait_for(read_some(client, job, page, 1), 5)
        assert (page.pieces, (await job.status()).state) == (["a"], State.ACTIVE)
        go.set()
        await final(job)


async def test_fifty_readers_of_one_client_get_everything(client: Client, server_url: str) -> None:
    agent = Agent("q")

    @agent.job
    async def talk(ctx: Context) -> None:
        for number in range(100):
            await ctx.emit(number)

    job = await client.enqueue(talk)
    reading = [asyncio.create_task(read_all(client, job)) for _ in range(50)]
    async with working(agent, server_url):
        pages = await asyncio.gather(*reading)
    assert {tuple(page.pieces) for page in pages} == {tuple(range(100))}
    assert (await job.status()).state is State.COMPLETED  # the readers have used none of the client's connections


def test_a_sync_client_reads_too(server_url: str) -> None:
    agent = Agent("q")

    @agent.job
    def talk(ctx: Context) -> None:
        for number in range(3):
            ctx.emit(number)

    with SyncClient(server_url) as client:
        job = client.enqueue(talk)
        asyncio.run(work_off(agent, server_url))
        events = [(event.type, event.data) for event in job.stream()]
        assert events == [("data", 0), ("data", 1), ("data", 2), ("end", "completed")]
        stream = client.stream(job.id)
        assert next(stream).data == 0
        stream.close()


async def test_an_unknown_job_or_event_is_an_error(client: Client) -> None:
    with pytest.raises(JobNotFound):
        await read_all(client, "nothing")
    with pytest.raises(UsageError, match="is no ID of a stream's event"):
        await read_all(client, "nothing", after="yesterday")


async def test_a_job_that_emits_nothing_has_a_stream_that_ends(client: Client, server_url: str) -> None:
    agent, go = Agent("q"), asyncio.Event()

    @agent.job
    async def silent(ctx: Context) -> None:
        await go.wait()

    job = await client.enqueue(silent)
    reading = asyncio.create_task(read_all(client, job))
    async with working(agent, server_url):
        await until(lambda: is_active(job), what="it runs")
        go.set()
        assert ((await reading).pieces, reading.result().end) == ([], "completed")


async def is_active(job: Job[Any]) -> bool:
    return (await job.status()).state is State.ACTIVE


# --- runs that follow one another


async def test_a_failed_attempt_is_rewound_to_where_the_next_one_differs(run: Run) -> None:
    async def talk(ctx: Context) -> str:
        for word in ("the ", "same ", f"attempt {ctx.attempt}"):
            await ctx.emit(word)
            await asyncio.sleep(0.06)  # each is in a batch of its own
        if ctx.attempt == 1:
            await ctx.emit(" fails")
            raise ConnectionError
        return "done"

    status, page = await run(talk)
    assert status.result == "done"
    assert (page.pieces, page.rewinds, page.end) == (["the ", "same ", "attempt 2"], [2], "completed")


async def test_a_run_that_emits_less_drops_the_rest_at_its_end(run: Run) -> None:
    async def talk(ctx: Context) -> None:
        if ctx.attempt == 1:
            await ctx.emit("only now")
            raise ConnectionError

    status, page = await run(talk)
    assert status.state is State.COMPLETED
    assert (page.pieces, page.rewinds) == ([], [0])


@pytest.mark.parametrize("is_concurrent", [False, True])
async def test_what_finished_steps_have_emitted_is_not_repeated_when_the_job_wakes(
    run: Run, is_concurrent: bool
) -> None:
    async def think(ctx: Context, name: str) -> str:
        for number in range(5):
            await ctx.emit(f"{name}{number} ")
            await asyncio.sleep(0.02)
        return name

    async def talk(ctx: Context) -> list[str]:
        await ctx.emit("begins ")
        calls = [ctx.step("think", think, ctx, name, key=name) for name in "xyz"]
        names = list(await asyncio.gather(*calls)) if is_concurrent else [await call for call in calls]
        await ctx.emit("waits ")
        await ctx.sleep(3.0)
        await ctx.emit("goes on")
        return names

    status, page = await run(talk)
    assert (status.result, status.deliveries) == (["x", "y", "z"], 2)
    assert page.rewinds == []
    assert (page.pieces[0], page.pieces[-2:], len(page.pieces)) == ("begins ", ["waits ", "goes on"], 18)
    for name in "xyz":
        assert [word for word in page.pieces if word[0] == name and word[1:2].isdigit()] == [
            f"{name}{n} " for n in range(5)
        ]


async def test_a_step_that_is_tried_again_in_place_takes_back_what_it_has_emitted(run: Run) -> None:
    tries: list[int] = []

    async def think(ctx: Context) -> None:
        tries.append(1)
        await ctx.emit("half")
        if len(tries) == 1:
            raise ConnectionError
        await ctx.emit(" and half")

    async def talk(ctx: Context) -> None:
        await ctx.emit("first ")
        await ctx.step("think", think, ctx, attempts=2, backoff=SOON)
        await ctx.emit(" last")

    _, page = await run(talk)
    assert page.pieces == ["first ", "half", " and half", " last"]


async def test_a_step_with_once_that_has_raised_emits_again_what_it_had_emitted(run: Run) -> None:
    async def pay(ctx: Context) -> None:
        await ctx.emit("paying")
        raise ValueError("declined")

    async def talk(ctx: Context) -> None:
        with pytest.raises(StepFailed):
            await ctx.step("pay", pay, ctx, once=True)
        if ctx.attempt == 1:
            raise ConnectionError
        await ctx.emit(" declined")

    _, page = await run(talk)
    assert (page.pieces, page.rewinds) == (["paying", " declined"], [])


# --- where events come from


async def test_steps_threads_and_plain_handlers_may_emit(run: Run) -> None:
    def in_thread(ctx: Context) -> None:
        ctx.emit("thread")

    async def talk(ctx: Context) -> None:
        await ctx.step("thread", in_thread, ctx)

    status, page = await run(talk)
    assert (status.state, page.pieces) == (State.COMPLETED, ["thread"]), status.error


async def test_a_plain_handler_emits(run: Run) -> None:
    def talk(ctx: Context) -> int:
        for number in range(700):
            ctx.emit(number)
        return 1

    status, page = await run(talk)
    assert (status.result, page.pieces) == (1, list(range(700)))


async def test_a_foreign_thread_may_not_emit(run: Run) -> None:
    raised: list[BaseException] = []

    async def talk(ctx: Context) -> None:
        def emit() -> None:
            try:
                ctx.emit("no")
            except DurableError as exc:
                raised.append(exc)

        thread = threading.Thread(target=emit)
        thread.start()
        await asyncio.to_thread(thread.join)
        await ctx.emit("yes")

    _, page = await run(talk)
    assert page.pieces == ["yes"]
    (error,) = raised
    assert "another thread than the handler's" in str(error)


async def test_nothing_is_emitted_after_the_job_has_ended(run: Run) -> None:
    kept: list[Context] = []

    async def talk(ctx: Context) -> None:
        kept.append(ctx)
        await ctx.emit("yes")

    _, page = await run(talk)
    assert page.pieces == ["yes"]
    with pytest.raises(DurableError, match="has ended"):
        kept[0].emit("no")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("x" * MAX_EVENT_BYTES, "an event of job the-job has 65,538 bytes, over the limit of 65,536"),
        (float("nan"), "an event of job the-job: .* is nan, which JSON cannot represent"),
        (object(), "the event is of the type object, not JSON"),
    ],
)
async def test_an_event_that_cant_be_stored_is_refused_where_it_is_emitted(run: Run, value: Any, message: str) -> None:
    async def talk(ctx: Context) -> None:
        with pytest.raises(InvalidPayload, match=message):
            ctx.emit(value)
        await ctx.emit("fine")

    status, page = await run(talk)
    assert (status.error, page.pieces) == (None, ["fine"])


async def test_a_step_may_emit_a_mebibyte(run: Run) -> None:
    async def shout(ctx: Context) -> None:
        for _ in range(200):
            await ctx.emit("x" * 10_000)

    async def talk(ctx: Context) -> None:
        await ctx.step("shout", shout, ctx)

    status, _ = await run(talk)
    assert status.state is State.DEAD
    assert 'step "shout#1" has emitted over 1 MiB' in str(status.error)


# --- ends


async def test_the_end_says_how_the_job_has_ended_and_is_kept_as_long_as_its_result(
    client: Client, server_url: str, server: Server
) -> None:
    agent = Agent("q")

    @agent.job(keep_result=100.0)
    async def fine(ctx: Context) -> None:
        await ctx.emit(1)

    @agent.job(keep_result=0)
    async def dies(ctx: Context) -> None:
        await ctx.emit(1)
        raise Fatal("no")

    @agent.job(keep_result=float("inf"))
    async def for_ever(ctx: Context) -> None:
        await ctx.emit(1)

    @agent.job(backoff=3600, keep_result=100.0)
    async def again(ctx: Context) -> None:
        await ctx.emit(1)
        raise Retry("later")

    jobs: list[Job[Any]] = [await client.enqueue(job) for job in (fine, dies, for_ever, again)]
    await work_off(agent, server_url)
    await jobs[3].cancel()
    pages = [await read_all(client, job) for job in jobs]
    assert [page.end for page in pages] == ["completed", "dead", "completed", "cancelled"]
    assert [page.pieces for page in pages] == [[1]] * 4
    expiries = [await server.redis.ttl(f"aq:stream:{job.id}") for job in jobs]
    assert [90 < expiries[0] <= 100, 50 < expiries[1] <= 60, expiries[2], 3500 < expiries[3] <= 3600] == [
        True,
        True,
        -1,
        True,
    ]


async def test_a_running_job_that_is_cancelled_ends_its_stream(client: Client, server_url: str) -> None:
    agent = Agent("q")

    @agent.job
    async def talk(ctx: Context) -> None:
        await ctx.emit("a")
        await asyncio.Event().wait()

    job = await client.enqueue(talk)
    async with working(agent, server_url):
        page = Page()
        await read_some(client, job, page, 1)
        await job.cancel()
        page = await read_all(client, job, page, after=page.last_id)
    assert (page.pieces, page.end) == (["a"], "cancelled")


async def test_a_job_that_is_cancelled_before_its_first_run_ends_for_its_readers(client: Client) -> None:
    job = await client.enqueue("q", "talk")
    reading = asyncio.create_task(read_all(client, job))
    await job.cancel()
    assert ((await reading).pieces, reading.result().end) == ([], "cancelled")


async def test_a_replay_goes_on_with_the_stream_and_discard_deletes_it(
    client: Client, server_url: str, server: Server
) -> None:
    agent, is_well = Agent("q"), list[bool]()

    async def think(ctx: Context) -> None:
        await ctx.emit("thought ")

    @agent.job(attempts=1)
    async def talk(ctx: Context) -> None:
        await ctx.step("think", think, ctx)
        if not is_well:
            await ctx.emit("ill")
            raise Fatal("ill")
        await ctx.emit("well")

    job = await client.enqueue(talk)
    await work_off(agent, server_url)
    page = await read_all(client, job)
    assert (page.pieces, page.end) == (["thought ", "ill"], "dead")
    is_well.append(True)
    await client.replay("q", job.id)
    reading = asyncio.create_task(read_all(client, job))
    await work_off(agent, server_url)
    assert ((await reading).pieces, reading.result().end) == (["thought ", "well"], "completed")
    assert (await read_all(client, job, page, after=page.last_id)).pieces == ["thought ", "well"]

    is_well.clear()
    other = await client.enqueue(talk, id="other")
    await work_off(agent, server_url)
    await client.discard("q", other.id)
    assert await server.redis.keys("aq:stream:other") == []
    with pytest.raises(JobNotFound):
        await read_all(client, other)


async def test_a_job_with_an_id_that_was_used_before_shows_nothing_of_the_earlier_one(
    client: Client, server_url: str
) -> None:
    agent = Agent("q")

    @agent.job(keep_result=0)
    async def talk(ctx: Context, text: str) -> None:
        await ctx.emit(text)

    await client.enqueue(talk, "old", id="again")
    await work_off(agent, server_url)
    assert (await read_all(client, "again")).pieces == ["old"]
    job = await client.enqueue(talk, "new", id="again")
    reading = asyncio.create_task(read_all(client, job))
    await asyncio.sleep(0)
    await work_off(agent, server_url)
    assert ((await reading).pieces, (await read_all(client, job)).pieces) == (["new"], ["new"])


# --- bounds


async def test_a_late_reader_of_a_long_stream_learns_what_is_missing(
    client: Client, server_url: str, server: Server
) -> None:
    agent = Agent("q")

    @agent.job
    async def talk(ctx: Context) -> None:
        for number in range(2 * MAX_EVENTS):
            await ctx.emit(number)

    job = await client.enqueue(talk)
    await work_off(agent, server_url, deadline=60)
    page = await read_all(client, job)
    assert MAX_EVENTS <= len(page.pieces) <= MAX_EVENTS + 500
    assert page.missing + len(page.pieces) == 2 * MAX_EVENTS
    assert page.pieces == list(range(page.missing, 2 * MAX_EVENTS))


async def test_a_rerun_of_a_job_with_a_long_stream_writes_all_of_it_again(client: Client, server_url: str) -> None:
    agent = Agent("q")

    @agent.job(attempts=2, backoff=SOON)
    async def talk(ctx: Context) -> None:
        for number in range(MAX_EVENTS + 1_000 if ctx.attempt == 1 else 3):
            await ctx.emit(number)
        if ctx.attempt == 1:
            raise ConnectionError

    job = await client.enqueue(talk)
    async with working(agent, server_url):
        await final(job, deadline=60)
    page = await read_all(client, job)
    assert (page.pieces, page.missing) == ([0, 1, 2], 0)


async def test_events_wait_while_the_server_is_full(start_server: Callable[..., RunningServer]) -> None:
    running = start_server()
    agent, go, emitted = Agent("q"), asyncio.Event(), list[int]()

    @agent.job
    async def talk(ctx: Context) -> None:
        await go.wait()
        for number in range(2_000):
            await ctx.emit(number)
            emitted.append(number)

    async with Client(running.url) as client, Server(ServerOptions(running.url)) as server:
        job = await client.enqueue(talk)
        async with working(agent, running.url) as worker:
            await until(lambda: is_active(job), what="it runs")
            await server.redis.config_set("maxmemory", "1mb")
            go.set()
            await until(lambda: worker.state.blocked_calls, what="the events wait")
            assert len(emitted) < 1_000  # the buffer is bounded
            await server.redis.config_set("maxmemory", "0")
            assert (await read_all(client, job)).pieces == list(range(2_000))


async def test_a_worker_that_lost_its_lease_appends_nothing(client: Client, server_url: str, server: Server) -> None:
    agent, go = Agent("q"), asyncio.Event()

    @agent.job
    async def talk(ctx: Context) -> None:
        await ctx.emit("before")
        await go.wait()
        await ctx.emit("after")
        await asyncio.Event().wait()

    job = await client.enqueue(talk)
    async with working(agent, server_url) as worker:
        await read_some(client, job, Page(), 1)
        held = await server.redis.get(f"arq:in-progress:{job.id}")
        await server.redis.set(f"arq:in-progress:{job.id}", held + b"1")  # a later delivery to the same worker
        go.set()
        await until(lambda: not worker.state.running, what="the worker notices")
        entries: Any = await server.redis.execute_command("XRANGE", f"aq:stream:{job.id}", "-", "+")
        assert [fields[b"v"] for _, fields in entries] == [b'["before"]']


async def test_a_job_that_never_emits_pays_no_command_and_a_flush_costs_few(
    client: Client, server_url: str, server: Server
) -> None:
    agent = Agent("q")

    @agent.job
    async def talk(ctx: Context, count: int) -> None:
        for number in range(count):
            await ctx.emit(number)

    async def commands(count: int) -> dict[str, int]:
        await client.enqueue(talk, count)
        worker = worker_for(agent, server_url, burst=True)
        await server.redis.config_resetstat()
        await worker.run()
        found: Any = await server.redis.info("commandstats")
        return {name.removeprefix("cmdstat_"): use["calls"] for name, use in found.items()}

    await commands(1)  # loads the scripts
    silent, one, many = await commands(0), await commands(1), await commands(400)
    assert not any(name.startswith("x") for name in silent)
    counted = ("evalsha", "xadd", "xinfo|stream", "xread", "xrange")
    assert {name: one[name] - silent.get(name, 0) for name in counted if name in one} == {
        "evalsha": 2,  # to read the journal once, and to add
        "xadd": 2,  # the event, and the end
        "xinfo|stream": 1,
    }
    assert many["xadd"] == one["xadd"]


async def test_a_sandbox_runs_the_handlers_while_it_reads() -> None:
    agent = Agent("q")

    @agent.job
    async def talk(ctx: Context, word: str) -> None:
        await ctx.emit(word)

    async with Sandbox(agent) as box:
        job = await box.client.enqueue(talk, "hello")
        assert [event.data async for event in job.stream()] == ["hello", "completed"]
        other = await box.client.enqueue("other", "talk")
        with pytest.raises(UsageError, match="which no agent of this Sandbox serves"):
            await read_all(box.client, other)
    ctx = context()
    await talk(ctx, "alone")
    assert ctx.emitted == ["alone"]
