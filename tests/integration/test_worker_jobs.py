"""Actions of running jobs, and jobs that can't run. Rules 1, 9 and 12."""

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import BaseModel, SecretStr

from agentqueue import Agent, Backoff, Client, Context, Retry, Snooze, SyncClient, declare
from agentqueue.clock import monotonic, now_ms
from agentqueue.errors import InvalidPayload, UsageError
from agentqueue.model.dead_letter import DeadLetterReason
from agentqueue.model.job import State
from agentqueue.store import Engine, Server
from tests.support.raw_queue import RawQueue
from tests.support.replies import awaited, field
from tests.support.workers import final, until, work_off, working

FAST = Backoff("fixed", delay=0.05, jitter=0.0)


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


class Quotes(BaseModel):
    prices: list[float]


# --- checkpoints


async def test_a_checkpoint_comes_back_after_a_failed_attempt(client: Client, server_url: str) -> None:
    agent, seen = Agent("q"), []

    @agent.job(attempts=3, backoff=FAST)
    async def paged(ctx: Context) -> int:
        seen.append(ctx.resume)
        page: int = (ctx.resume or {"page": 0})["page"]
        if page < 2:
            await ctx.checkpoint({"page": page + 1})
            raise ConnectionError("cut off")
        return page

    job = await client.enqueue(paged)
    async with working(agent, server_url):
        assert (await final(job)).result == 2
    assert seen == [None, {"page": 1}, {"page": 2}]


async def test_a_checkpoint_is_kept_when_await_returns(client: Client, server_url: str, server: Server) -> None:
    agent, kept, go = Agent("q"), asyncio.Event(), asyncio.Event()

    @agent.job
    async def paged(ctx: Context) -> None:
        await ctx.checkpoint([1, {"two": 2}])
        kept.set()
        await go.wait()

    job = await client.enqueue(paged)
    async with working(agent, server_url):
        await kept.wait()
        assert await field(server.redis, f"aq:meta:{job.id}", "checkpoint") == b'[1,{"two":2}]'
        go.set()
        await final(job)


async def test_a_checkpoint_that_is_not_json_is_refused_at_the_call(client: Client, server_url: str) -> None:
    agent, refused = Agent("q"), []

    @agent.job
    async def paged(ctx: Context) -> None:
        with pytest.raises(InvalidPayload, match="the checkpoint is of the type object"):
            await ctx.checkpoint(object())
        with pytest.raises(UsageError, match="0 to 100"):
            await ctx.progress("101")  # type: ignore[arg-type]
        refused.append(True)

    job = await client.enqueue(paged)
    await work_off(agent, server_url)
    assert (await job.status()).state is State.COMPLETED
    assert refused == [True]


async def test_progress_is_written_at_most_twice_a_second(client: Client, server_url: str, server: Server) -> None:
    agent = Agent("q")

    @agent.job
    async def chatty(ctx: Context) -> None:
        for step in range(400):
            await ctx.progress(step / 4)
            await asyncio.sleep(0.002)

    job = await client.enqueue(chatty)
    async with working(agent, server_url):
        before, began = (await server.redis.info("commandstats")).get("cmdstat_hset", {}).get("calls", 0), monotonic()
        status = await final(job)
        after = (await server.redis.info("commandstats")).get("cmdstat_hset", {}).get("calls", 0)
        seconds = monotonic() - began
    assert status.progress is not None
    assert status.progress.percent == 99.75
    assert after - before <= 5 + 2.5 * seconds, "two a second, a heartbeat each two seconds, the first and the last"


async def test_a_worker_that_lost_its_lease_is_told_at_its_next_checkpoint(
    client: Client, server_url: str, server: Server
) -> None:
    agent, stopped = Agent("q"), asyncio.Event()

    @agent.job
    async def robbed(ctx: Context) -> str:
        await server.redis.set(f"arq:in-progress:{ctx.id}", "thief/1|3|1|1")
        await ctx.checkpoint(1)
        try:
            await asyncio.sleep(30)
        finally:
            stopped.set()
        return "never recorded"

    job = await client.enqueue(robbed)
    async with working(agent, server_url):
        await stopped.wait()
        assert (await job.status()).worker == "thief"
    assert await server.redis.exists(f"arq:result:{job.id}") == 0


async def test_a_worker_that_lost_its_lease_stops_the_job_and_records_nothing(
    client: Client, server_url: str, server: Server
) -> None:
    """The next renewal reports it, although the handler calls nothing of the worker."""
    agent, started, stopped = Agent("q"), asyncio.Event(), asyncio.Event()

    @agent.job
    async def robbed(ctx: Context) -> None:
        started.set()
        try:
            await asyncio.sleep(30)
        finally:
            stopped.set()

    job = await client.enqueue(robbed)
    async with working(agent, server_url) as worker:
        await started.wait()
        await server.redis.set(f"arq:in-progress:{job.id}", "thief/1|3|1|1")
        await asyncio.wait_for(stopped.wait(), 3)
        await until(lambda: not worker.state.leases, what="it is held no more")
    assert await server.redis.get(f"arq:in-progress:{job.id}") == b"thief/1|3|1|1"


async def test_the_outcome_of_a_job_that_another_worker_has_is_dropped_and_counted(
    client: Client, server_url: str, server: Server
) -> None:
    agent = Agent("q")

    @agent.job
    async def robbed(ctx: Context) -> str:
        await server.redis.set(f"arq:in-progress:{ctx.id}", "thief/1|3|1|1")
        return "never recorded"

    job = await client.enqueue(robbed)
    await work_off(agent, server_url)
    assert await server.redis.exists(f"arq:result:{job.id}") == 0
    assert (await client.stats("q")).counters["lost"] == 1


# --- children


async def test_children_are_sent_with_their_parents_success(client: Client, server_url: str) -> None:
    agent, other = Agent("q"), Agent("proposals")

    @other.job
    async def analyze(ctx: Context, quotes: Quotes) -> float:
        return min(quotes.prices)

    ids: list[str] = []

    @agent.job
    async def search(ctx: Context) -> None:
        ids.append(ctx.enqueue(analyze, Quotes(prices=[3, 1, 2]), priority="high", tags=["acme"]))
        ids.append(ctx.enqueue(("mail", "send"), {"to": "x"}, delay=60, id="mail-1"))
        assert (await client.stats("proposals")).waiting == 0, "not before the job's end"

    job = await client.enqueue(search)
    await work_off(agent, server_url)
    child = await client.job(ids[0]).status()
    assert (child.queue, child.priority, child.data) == ("proposals", "high", {"prices": [3.0, 1.0, 2.0]})
    assert ids[1] == "mail-1"
    assert (await client.job("mail-1").status()).state is State.DELAYED
    await work_off(other, server_url)
    assert await client.job(ids[0]).result() == 1.0
    assert (await job.status()).state is State.COMPLETED


@pytest.mark.parametrize("ending", [Retry(after=60), ValueError("no")], ids=["retried", "dead"])
async def test_a_failed_job_sends_no_children(client: Client, server_url: str, ending: Exception) -> None:
    agent = Agent("q")

    @agent.job(attempts=2 if isinstance(ending, Retry) else 1)
    async def parent(ctx: Context) -> None:
        ctx.enqueue(("children", "child"), 1)
        raise ending

    await client.enqueue(parent)
    await work_off(agent, server_url)
    assert (await client.stats("children")).waiting == 0


async def test_a_rerun_sends_nothing_twice(client: Client, server_url: str) -> None:
    agent = Agent("q")
    ids: list[list[str]] = []

    @agent.job(attempts=3, backoff=FAST)
    async def parent(ctx: Context) -> None:
        ids.append([ctx.enqueue(("children", "child"), n) for n in range(3)])
        if ctx.attempt < 3:
            raise ConnectionError("cut off")

    job = await client.enqueue(parent, id="parent-1")
    async with working(agent, server_url):
        assert (await final(job)).state is State.COMPLETED
    assert ids[0] == ids[1] == ids[2]
    assert (await client.stats("children")).waiting == 3


async def test_an_id_that_is_enqueued_again_sends_its_children_again(client: Client, server_url: str) -> None:
    agent = Agent("reports")

    @agent.job(keep_result=0)
    async def nightly(ctx: Context) -> None:
        ctx.enqueue(("mail", "send"))

    for day in range(1, 4):
        await client.enqueue(nightly, id="nightly-report")
        await work_off(agent, server_url)
        assert (await client.stats("mail")).waiting == day


async def test_a_payload_that_is_left_out_is_the_default_and_none_is_none(client: Client, server_url: str) -> None:
    agent = Agent("q")
    got: list[int | str | None] = []

    @agent.job
    async def number(ctx: Context, n: int = 5) -> None:
        got.append(n)

    @agent.job
    async def optional(ctx: Context, n: int | None = 5) -> None:
        got.append(n)

    @agent.job
    async def nothing(ctx: Context) -> None:
        got.append("nothing")

    @agent.job
    async def parent(ctx: Context) -> None:
        ctx.enqueue(optional)
        ctx.enqueue(optional, None)
        ctx.enqueue(("q", "optional"), None)

    sent: list[tuple[Any, ...]] = [(number,), (number, 7), (optional,), (optional, None), (agent.jobs["optional"], 3)]
    sent += [("q", "number"), ("q", "optional", None), ("q", "nothing"), ("q", "nothing", None)]
    for call in sent:
        await client.enqueue(*call)
        await work_off(agent, server_url)
    assert got == [5, 7, 5, None, 3, 5, None, "nothing", "nothing"]
    got.clear()
    await client.enqueue(parent)
    await work_off(agent, server_url)
    assert got == [5, None, None]


async def test_where_a_job_comes_from_and_whom_it_is_for_can_be_read_in_every_state(
    client: Client, server_url: str
) -> None:
    agent = Agent("q")
    origin: dict[str, Any] = {"tags": ["acme", "vip"], "tenant": "acme", "trace": f"00-{'a' * 32}-{'b' * 16}-01"}
    seen: list[tuple[Any, ...]] = []

    @agent.job(attempts=1)
    async def parent(ctx: Context) -> None:
        seen.append((list(ctx.tags), ctx.tenant, ctx.trace, ctx.parent))
        if ctx.id == "bad":
            raise ValueError("no")
        ctx.enqueue(("mail", "send"), id=f"{ctx.id}-mail")

    def origin_of(of: Any) -> dict[str, Any]:
        return {"tags": list(of.tags), "tenant": of.tenant, "trace": of.trace, "parent": of.parent}

    for job_id in ("good", "bad", "off"):
        await client.enqueue(parent, id=job_id, **origin)
    assert [origin_of(status) for status in await client.jobs("q")] == [origin | {"parent": None}] * 3
    await client.cancel("off")
    await work_off(agent, server_url)
    assert seen == [(*origin.values(), None)] * 2
    for job_id, state in (("good", State.COMPLETED), ("bad", State.DEAD), ("off", State.CANCELLED)):
        status = await client.status(job_id)
        assert (status.state, origin_of(status)) == (state, origin | {"parent": None})
        wire = status.to_json()
        assert {name: wire[name] for name in origin} == origin
    (letter,) = await client.dead_letters("q")
    assert origin_of(letter) == origin_of(await client.dead_letter("bad")) == origin | {"parent": None}
    child = origin_of(await client.status("good-mail"))
    assert child == {"tags": [], "tenant": "acme", "trace": origin["trace"], "parent": "good"}
    plain = await client.enqueue("q", "parent")
    assert origin_of(await plain.status()) == {"tags": [], "tenant": None, "trace": None, "parent": None}


async def test_a_secret_is_refused_wherever_it_would_be_written(client: Client, server_url: str) -> None:
    agent = Agent("q")

    class Login(BaseModel):
        password: SecretStr

    login = Login(password=SecretStr("hunter2"))

    @agent.job
    async def enter(ctx: Context, login: Login) -> None: ...

    @agent.job(attempts=1)
    async def child(ctx: Context) -> None:
        ctx.enqueue(enter, login)

    @agent.job(attempts=1)
    async def checkpoint(ctx: Context) -> None:
        await ctx.checkpoint(login)

    @agent.job(attempts=1)
    async def result(ctx: Context) -> Login:
        return login

    for call in ((enter, login), ("q", "enter", login)):
        with pytest.raises(InvalidPayload, match="password is a SecretStr, whose value is not written"):
            await client.enqueue(*call)
    for handler in (child, checkpoint, result):
        job = await client.enqueue(handler)
        await work_off(agent, server_url)
        status = await job.status()
        assert status.state is State.DEAD
        assert "password" in str(status.error)
        assert "whose value is not written: pass a reference" in str(status.error)


async def test_a_child_to_the_agents_own_queue_follows_where_the_agent_is_deployed(
    client: Client, server_url: str
) -> None:
    agent = Agent("flight-search")

    @agent.job
    async def second(ctx: Context) -> str:
        return ctx.queue

    ids: list[str] = []

    @agent.job
    async def first(ctx: Context) -> None:
        ids.append(ctx.enqueue(second))

    await client.enqueue("eu:flight-search", "first")
    await work_off(agent, server_url, queue="eu:flight-search")
    assert await client.job(ids[0]).result() == "eu:flight-search"


async def test_a_result_has_the_type_that_the_handler_returns(server_url: str) -> None:
    agent = Agent("q")

    @agent.job
    async def quote(ctx: Context, quotes: Quotes) -> Quotes:
        return Quotes(prices=[price + 1 for price in quotes.prices])

    declared = declare("q", "quote", Quotes, Quotes)
    other = declare("q", "quote", Quotes, int)
    async with Client(server_url) as client:
        typed = await client.enqueue(quote, Quotes(prices=[1]))
        same = await client.enqueue(declared, Quotes(prices=[2]))
        misread = await client.enqueue(other, Quotes(prices=[3]))
        many = await client.enqueue_many(
            [{"function": quote, "payload": {"prices": [4]}}, {"queue": "q", "name": "quote", "data": {"prices": [5]}}]
        )
        await work_off(agent, server_url)
        assert (await typed.result(), await same.result()) == (Quotes(prices=[2]), Quotes(prices=[3]))
        assert [await job.result() for job in many] == [Quotes(prices=[5]), {"prices": [6]}]
        assert await client.result(typed.id) == await client.job(typed.id).result() == {"prices": [2]}
        with pytest.raises(InvalidPayload, match=rf"^job {misread.id} is completed, but its result does not fit int"):
            await misread.result()

    def read_in_a_thread() -> Quotes:
        with SyncClient(server_url) as client:
            return client.enqueue(quote, Quotes(prices=[1]), id=typed.id).result()

    assert await asyncio.to_thread(read_in_a_thread) == Quotes(prices=[2])


async def test_a_childs_payload_is_checked_where_it_is_enqueued(client: Client, server_url: str) -> None:
    agent = Agent("q")

    @agent.job
    async def analyze(ctx: Context, quotes: Quotes) -> None: ...

    @agent.job(attempts=1)
    async def parent(ctx: Context) -> None:
        ctx.enqueue(agent.jobs["analyze"], {"prices": ["cheap"]})

    job = await client.enqueue(parent)
    await work_off(agent, server_url)
    letter = await client.dead_letter(job.id)
    assert letter.reason is DeadLetterReason.FAILED, "the parent's own failure, not its payload's"
    assert "prices.0" in letter.error


# --- snoozes


@pytest.mark.parametrize("is_async", [True, False])
async def test_a_job_that_snoozes_runs_again_without_an_attempt(
    client: Client, server_url: str, *, is_async: bool
) -> None:
    agent = Agent("q")

    def call_model(ctx: Context) -> tuple[int, int]:
        if ctx.delivery < 4:
            raise Snooze("the model is busy", after=0.1)
        return ctx.attempt, ctx.delivery

    async def call_model_async(ctx: Context) -> tuple[int, int]:
        return call_model(ctx)

    agent.job(name="call", attempts=1)(call_model_async if is_async else call_model)
    job = await client.enqueue(agent.jobs["call"])

    async def has_snoozed() -> bool:
        return (await job.status()).snoozes > 0

    async with working(agent, server_url):
        await until(has_snoozed, what="the first snooze")
        status = await job.status()
        assert (status.snooze, status.attempts, status.error) == ("the model is busy", 0, None)
        assert await job.result(timeout=30) == (1, 4)
    assert (await job.status()).deliveries == 4


async def test_a_snooze_holds_no_slot_and_says_until_when(client: Client, server_url: str) -> None:
    agent = Agent("q")

    @agent.job
    async def call(ctx: Context) -> None:
        raise Snooze("the budget of today is used up", after=3_600)

    job = await client.enqueue(call)
    await work_off(agent, server_url)
    status = await job.status()
    assert (status.state, status.snoozes, status.to_json()["snooze"]) == (
        State.DELAYED,
        1,
        "the budget of today is used up",
    )
    assert status.due_at is not None
    assert 3_500 < status.due_at.timestamp() - now_ms() / 1000 <= 3_600
    assert (await client.stats("q")).active == 0


# --- why a run ends


@pytest.mark.parametrize(
    ("end", "reason"), [("cancel", "cancelled"), ("timeout", "timeout"), ("drain", "draining"), ("lose", "lease-lost")]
)
async def test_a_handler_that_is_stopped_can_tell_a_cancellation_from_what_lets_it_run_again(
    client: Client, server_url: str, end: str, reason: str
) -> None:
    agent, started, endings = Agent("q"), asyncio.Event(), list[str | None]()

    @agent.job(timeout=0.3 if end == "timeout" else 60, attempts=1)
    async def book(ctx: Context) -> None:
        endings.append(ctx.ending)
        started.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            endings.append(ctx.ending)
            raise

    job = await client.enqueue(book)
    async with working(agent, server_url) as worker:
        await started.wait()
        if end == "cancel":
            await job.cancel()
        elif end == "drain":
            worker.stop(grace=0)
        elif end == "lose":
            worker.state.lose(job.id)
        await until(lambda: len(endings) == 2, what="the handler is stopped")
    assert endings == [None, reason]


# --- payloads


async def test_a_payload_is_validated_and_converted(client: Client, server_url: str) -> None:
    agent, seen = Agent("q"), []

    @agent.job
    async def analyze(ctx: Context, quotes: Quotes) -> None:
        seen.append(quotes)

    await client.enqueue("q", "analyze", {"prices": ["1.5", 2]})
    await work_off(agent, server_url)
    assert seen == [Quotes(prices=[1.5, 2.0])]


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param({"prices": ["cheap"]}, id="wrong-type"),
        pytest.param({}, id="missing-field"),
        pytest.param(None, id="no-payload"),
        pytest.param([1], id="not-an-object"),
    ],
)
async def test_a_refused_payload_is_dead_at_once_with_the_models_message(
    client: Client, server_url: str, payload: Any
) -> None:
    agent, runs = Agent("q"), []

    @agent.job(attempts=5)
    async def analyze(ctx: Context, quotes: Quotes) -> None:
        runs.append(1)

    job = await client.enqueue("q", "analyze", payload)
    await work_off(agent, server_url)
    letter = await client.dead_letter(job.id)
    assert (letter.reason, runs) == (DeadLetterReason.INVALID_PAYLOAD, [])
    assert "Quotes refuses the payload" in letter.error


async def test_a_payload_for_a_handler_that_takes_none_is_refused(client: Client, server_url: str) -> None:
    agent = Agent("q")

    @agent.job
    async def bare(ctx: Context) -> None: ...

    @agent.job
    async def optional(ctx: Context, n: int = 5) -> int:
        return n

    refused = await client.enqueue("q", "bare", 1)
    fine, given = await client.enqueue("q", "optional"), await client.enqueue("q", "optional", 7)
    await work_off(agent, server_url)
    assert (await client.dead_letter(refused.id)).reason is DeadLetterReason.INVALID_PAYLOAD
    assert (await fine.result(), await given.result()) == (5, 7)


# --- records that can't be read


@pytest.fixture
def agent() -> Agent:
    made = Agent("q")

    @made.job
    async def fine(ctx: Context, n: int) -> int:
        return n

    return made


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        pytest.param(b"\x00\x01garbage", (DeadLetterReason.GARBAGE, "not valid"), id="garbage"),
        pytest.param(b"[]", (DeadLetterReason.GARBAGE, "not valid"), id="json-but-no-record"),
        pytest.param(b'{"f":1,"a":[],"k":{},"et":1}', (DeadLetterReason.GARBAGE, "f (string)"), id="wrong-types"),
        pytest.param(
            b'{"f":"fine","a":[1],"k":{},"et":1,"x":{"timeout":"soon"}}',
            (DeadLetterReason.GARBAGE, "x.timeout"),
            id="wrong-options",
        ),
        pytest.param(
            b"\x80\x04}\x94\x8c\x01f\x94\x8c\x04fine\x94s.", (DeadLetterReason.PICKLED, "--arq-pickle"), id="pickle"
        ),
        pytest.param(None, (DeadLetterReason.NO_RECORD, "no record"), id="id-without-a-record"),
    ],
)
async def test_a_record_that_cant_be_read_is_dead_and_the_worker_goes_on(
    client: Client, server: Server, agent: Agent, record: bytes | None, expected: tuple[DeadLetterReason, str]
) -> None:
    if record is not None:
        await server.redis.set("arq:job:bad-1", record)
    await server.redis.zadd("q", {"bad-1": 1})
    good = await client.enqueue("q", "fine", 3)
    await work_off(agent, server.options.url)
    letter = await client.dead_letter("bad-1")
    assert letter.reason is expected[0]
    assert expected[1] in letter.error
    assert letter.replayable is (record is not None)
    assert await good.result() == 3


async def test_notes_that_cant_be_read_count_as_none(
    client: Client, server_url: str, server: Server, agent: Agent
) -> None:
    job, other = await client.enqueue("q", "fine", 3), await client.enqueue("q", "fine", 4)
    notes = dict.fromkeys(("crashes", "releases", "errors", "progress", "expires", "unknown_since", "crash:1"), "many")
    await awaited(server.redis.hset(f"aq:meta:{job.id}", mapping=notes))
    await server.redis.set(f"arq:retry:{job.id}", "often")
    status = await job.status()
    assert (status.attempts, status.deliveries, status.progress, status.error) == (0, 0, None, None)
    await work_off(agent, server_url)
    assert [await it.result() for it in (job, other)] == [3, 4]


async def test_an_id_of_any_bytes_does_not_stop_the_worker(
    client: Client, server_url: str, server: Server, agent: Agent
) -> None:
    await server.redis.zadd("q", {b"\xff\xfe|\x00 bad": 1})
    good = await client.enqueue("q", "fine", 3)
    await work_off(agent, server_url)
    assert await good.result() == 3
    stats = await client.stats("q")
    assert (stats.dead, stats.active, stats.waiting) == (1, 0, 0)


async def test_a_job_with_an_id_of_any_bytes_completes(
    client: Client, server_url: str, server: Server, agent: Agent
) -> None:
    """Another client may draw such an ID. The result's JSON has it as valid text, the keys have it as it is."""
    job_id = b"\xff\xfe"
    record = b'{"t":null,"f":"fine","a":[3],"k":{},"et":1}'
    await awaited(server.redis.set(b"arq:job:" + job_id, record))
    await server.redis.zadd("q", {job_id: 1})
    await work_off(agent, server_url)
    stats = await client.stats("q")
    assert (stats.completed, stats.dead, stats.active, stats.waiting) == (1, 0, 0, 0)
    assert b'"r":3' in (await awaited(server.redis.get(b"arq:result:" + job_id)) or b"")


async def test_a_record_that_expired_before_its_turn_is_dead_as_expired(
    client: Client, server_url: str, server: Server, agent: Agent
) -> None:
    now_ms = int((await server.redis.time())[0]) * 1000
    await server.redis.zadd("q", {"late": now_ms - 5_000})  # arq's `_expires`: its record has gone, its id has not
    await work_off(agent, server_url)
    assert (await client.dead_letter("late")).reason is DeadLetterReason.EXPIRED


async def test_an_expiry_that_a_user_set_holds_for_retries_too(client: Client, server_url: str, server: Server) -> None:
    agent, runs = Agent("q"), []

    @agent.job(attempts=9, backoff=Backoff("fixed", delay=1, jitter=0))
    async def flaky(ctx: Context) -> None:
        runs.append(ctx.attempt)
        raise ConnectionError

    now_ms = int((await server.redis.time())[0]) * 1000
    record = b'{"t":null,"f":"flaky","a":[],"k":{},"et":%d}' % now_ms
    await server.redis.set("arq:job:soon", record, px=1_500)
    await server.redis.zadd("q", {"soon": now_ms})
    async with working(agent, server_url):
        await until(lambda: _is_dead(client, "soon"), what="it is dead")
    assert (await client.dead_letter("soon")).reason is DeadLetterReason.EXPIRED
    assert runs == [1, 2]


async def _is_dead(client: Client, job_id: str) -> bool:
    return (await client.job(job_id, queue="q").status()).state is State.DEAD


async def test_a_job_of_an_unknown_name_waits_for_a_worker_that_knows_it(
    client: Client, server_url: str, server: Server, agent: Agent
) -> None:
    job = await client.enqueue("q", "fin", 1)
    await work_off(agent, server_url)
    status = await job.status()
    assert (status.state, status.attempts) == (State.DELAYED, 0)
    due = (await client.stats("q")).next_due_seconds
    assert due is not None
    assert 4 < due <= 5
    await awaited(server.redis.hset(f"aq:meta:{job.id}", "unknown_since", "1"))  # a minute later
    await server.redis.zadd("q", {job.id: 1})
    await work_off(agent, server_url)
    letter = await client.dead_letter(job.id)
    assert letter.reason is DeadLetterReason.UNKNOWN_JOB
    assert "did you mean 'fine'?" in letter.error


async def test_a_job_whose_workers_died_three_times_is_dead_as_crashed(
    client: Client, server_url: str, server: Server, agent: Agent
) -> None:
    job = await client.enqueue("q", "fine", 1)
    for number in (1, 2, 3):
        dying = RawQueue(server, "q", worker=f"dying-{number}")
        await dying.claim()
        assert await Engine(server, "q").release_worker_leases(worker=dying.worker, reason="OOMKilled") == 1
    await work_off(agent, server_url)
    letter = await client.dead_letter(job.id)
    assert (letter.reason, letter.attempts, letter.deliveries) == (DeadLetterReason.CRASHED, 0, 3)
    assert [error.message for error in letter.errors[:3]] == [f"worker dying-{n}: OOMKilled" for n in (1, 2, 3)]


@pytest.mark.slow
async def test_a_handler_that_blocks_the_loop_keeps_its_lease(client: Client, server_url: str, server: Server) -> None:
    """Blocked for 30 s, nearly four leases, beside a worker that would take the job."""
    agent, runs, done = Agent("q"), [], threading.Event()

    @agent.job
    async def blocking(ctx: Context) -> str:
        runs.append(ctx.delivery)
        done.wait(30)
        return "held"

    job = await client.enqueue(blocking)
    agent_beside = Agent("q")

    @agent_beside.job(name="blocking")
    async def stolen(ctx: Context) -> str:
        return "stolen"

    running = threading.Thread(target=_in_thread, args=(agent, server_url))
    running.start()
    try:
        await until(lambda: runs, what="it runs")
        async with working(agent_beside, server_url):
            assert (await final(job, deadline=60)).result == "held"
    finally:
        done.set()
        await asyncio.to_thread(running.join, 10)
    assert runs == [1]


def _in_thread(agent: Agent, url: str) -> None:
    asyncio.run(work_off(agent, url, deadline=60))
