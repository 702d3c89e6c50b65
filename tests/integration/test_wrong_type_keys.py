"""Keys that somebody else has filled with another Redis type: one of a job's costs at most that job, one of the queue's
is named and waited for, and nothing else is lost, spins or stands still.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from agentqueue import Agent, Backoff, Client, Context, Fatal
from agentqueue.clock import now_ms
from agentqueue.errors import QueueUnavailable
from agentqueue.model.dead_letter import DeadLetterReason
from agentqueue.model.job import State
from agentqueue.model.outcomes import Claimed, Completed, DeadLettered, Released, Rescheduled
from agentqueue.store import FinishAndClaimReply, Server
from agentqueue_worker.adapters.telemetry import WorkerTelemetry
from tests.support.raw_queue import RawQueue
from tests.support.replies import field, fields
from tests.support.workers import DEADLINE, Work, final, until, working

if TYPE_CHECKING:
    from redis.asyncio import Redis

AT_ONCE = Backoff("fixed", delay=0.01, jitter=0.0)
WRITE: dict[str, tuple[Any, ...]] = {
    "string": ("SET", "theirs"),
    "hash": ("HSET", "field", "theirs"),
    "list": ("RPUSH", "theirs"),
    "zset": ("ZADD", 1, "theirs"),
    "set": ("SADD", "theirs"),
    "stream": ("XADD", "*", "field", "theirs"),
}
OF_A_JOB = {
    "arq:job:": "string",
    "arq:in-progress:": "string",
    "arq:retry:": "string",
    "aq:meta:": "hash",
    "aq:dead:": "hash",
}
LEVELS = {"q:urgent": "zset", "q:high": "zset", "q": "zset", "q:low": "zset"}
OF_A_QUEUE = LEVELS | {
    "q:dead": "zset",
    "q:dead:fp": "hash",
    "q:done": "zset",
    "q:limit": "list",
    "q:wake": "list",
    "q:stats": "hash",
    "q:workers": "hash",
    "q:drain": "hash",
    "q:reaped": "string",
    "q:sweep": "string",
    "arq:abort": "zset",
    "aq:queues": "set",
}


def wrong(kinds: dict[str, str], *, each: int = len(WRITE)) -> list[Any]:
    """Each key with the types that it must not have, or with some of them in turn."""
    turns = itertools.cycle(WRITE)
    pairs = []
    for key, own in kinds.items():
        others = [kind for kind in itertools.islice(turns, each + 1) if kind != own]
        pairs += [(key, kind) for kind in dict.fromkeys(others[:each])]
    return [pytest.param(key, kind, id=f"{key.strip(':')}-{kind}") for key, kind in pairs]


async def spoil(redis: "Redis", key: str, kind: str) -> None:
    """Another program writes there."""
    command, *rest = WRITE[kind]
    await redis.delete(key)
    await redis.execute_command(command, key, *rest)


async def set_aside(redis: "Redis", key: str, kind: str) -> None:
    """The same, but what it held can be put back."""
    if await redis.exists(key):
        await redis.rename(key, "aside")
    await spoil(redis, key, kind)


async def mend(redis: "Redis", key: str) -> None:
    """As it was before `set_aside`."""
    await redis.delete(key)
    if await redis.exists("aside"):
        await redis.rename("aside", key)


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


def make_agent(runs: Counter[str]) -> Agent:
    """Jobs that end in every way."""
    agent = Agent("q")

    @agent.job
    async def plain(ctx: Context) -> int:
        runs[ctx.id] += 1
        await ctx.progress(50)
        return 1

    @agent.job(attempts=2, backoff=AT_ONCE)
    async def flaky(ctx: Context) -> int:
        runs[ctx.id] += 1
        if ctx.attempt == 1:
            raise ConnectionError("no luck")
        return 1

    @agent.job
    async def hopeless(ctx: Context) -> None:
        runs[ctx.id] += 1
        raise Fatal("no such airport")

    return agent


OUTCOMES: dict[str, tuple[Callable[[Claimed], Any], State]] = {
    "completed": (lambda job: Completed(job.id, job.level, b"{}", 60_000, 5), State.COMPLETED),
    "retried": (lambda job: Rescheduled(job.id, job.level, 60_000, {"errors": b"[]"}), State.DELAYED),
    "dead": (lambda job: DeadLettered(job.id, job.level, b"{}", 60_000, "kind", b"{}"), State.DEAD),
    "released": (lambda job: Released(job.id, job.level, None, {"checkpoint": b"1"}), State.WAITING),
}
"""By their counters: how each is made, and where the job is then."""


async def end_all(raw_queue: RawQueue, end: str, jobs: Sequence[Claimed], seq: int = 1_000) -> FinishAndClaimReply:
    """Record that end of the jobs."""
    outcomes = [OUTCOMES[end][0](job) for job in jobs]
    return await raw_queue.engine.finish_and_claim(seq=seq, owner=raw_queue.owner, want=0, outcomes=outcomes)


async def refusal_of(raw_queue: RawQueue, end: str, jobs: Sequence[Claimed]) -> str:
    """What a round trip said that could not record it; '': it could."""
    try:
        assert not (await end_all(raw_queue, end, jobs)).lost
    except QueueUnavailable as exc:
        return str(exc)
    return ""


async def place(redis: "Redis", job_id: str) -> State:
    """Return the only place of the job in the queue. A client may be unable to read its keys, of which one is wrong."""
    async with redis.pipeline() as pipe:
        for key in ("q:done", "q:dead", *LEVELS):
            pipe.zscore(key, job_id)
        done, dead, *scores = await pipe.execute()
    found = [state for state, at in ((State.COMPLETED, done), (State.DEAD, dead)) if at is not None]
    now = now_ms()
    found += [
        State.ACTIVE if score < 0 else State.WAITING if score <= now else State.DELAYED
        for score in scores
        if score is not None
    ]
    (only,) = found
    return only


async def until_placed(redis: "Redis", job_id: str) -> None:
    """Until it is final."""
    async with asyncio.timeout(DEADLINE):
        while await place(redis, job_id) not in (State.COMPLETED, State.DEAD):  # noqa: ASYNC110  # Redis tells nobody
            await asyncio.sleep(0.02)


# --- a job's keys


@pytest.mark.parametrize(("prefix", "kind"), wrong(OF_A_JOB))
async def test_a_waiting_jobs_key_of_a_wrong_type_costs_at_most_that_job(
    client: Client, server: Server, server_url: str, prefix: str, kind: str
) -> None:
    runs: Counter[str] = Counter()
    names = ("plain", "flaky", "hopeless")
    victims = {name: await client.enqueue("q", name, id=f"victim-{name}") for name in names}
    others = [await client.enqueue("q", "plain", id=f"other-{n}") for n in range(3)]
    for name in names:
        await spoil(server.redis, f"{prefix}victim-{name}", kind)
    with structlog.testing.capture_logs() as logs:
        async with working(make_agent(runs), server_url):
            for job in (*others, *victims.values()):
                await until_placed(server.redis, job.id)
    ends = {job.id: await place(server.redis, job.id) for job in (*others, *victims.values())}
    assert all(ends.pop(job.id) is State.COMPLETED for job in others)
    reported = [line for line in logs if _names(line, f"{prefix}victim-plain", kind)]
    if prefix == "arq:job:":
        assert set(ends.values()) == {State.DEAD}
        letter = await client.dead_letter("victim-plain")
        assert (letter.reason, letter.replayable) == (DeadLetterReason.GARBAGE, False)
        assert f"arq:job:victim-plain is a {kind}" in letter.errors[-1].message
        assert [line["event"] for line in reported] == ["job_dead"]
    else:
        assert [ends[job.id] for job in victims.values()] == [State.COMPLETED, State.COMPLETED, State.DEAD]
        assert runs == Counter({f"victim-{n}": 2 if n == "flaky" else 1 for n in names}) + Counter(
            {f"other-{n}": 1 for n in range(3)}
        )
    if prefix in ("aq:meta:", "aq:dead:"):
        assert [line["event"] for line in reported] == ["wrong_type_key"]
    assert (await client.stats("q")).counters.get("lost", 0) == 0


@pytest.mark.parametrize(("prefix", "kind"), wrong(OF_A_JOB))
@pytest.mark.parametrize("end", OUTCOMES)
async def test_a_running_jobs_key_of_a_wrong_type_keeps_no_outcome_from_being_recorded(
    client: Client, server: Server, prefix: str, kind: str, end: str
) -> None:
    """But without its in-progress key nobody holds it: the outcome is dropped, and it runs again (rule 2)."""
    raw_queue = RawQueue(server, "q")
    for name in ("victim", "other"):
        await client.enqueue("q", "plain", id=name)
    victim, other = await raw_queue.claim(2)
    await spoil(server.redis, f"{prefix}victim", kind)
    reply = await end_all(raw_queue, end, [victim, other])
    held = prefix != "arq:in-progress:"
    assert reply.lost == ([] if held else ["victim"])
    if not held:
        return
    assert await place(server.redis, "other") is OUTCOMES[end][1]
    assert await place(server.redis, "victim") is OUTCOMES[end][1]
    if end == "retried":
        assert await server.redis.get("arq:retry:victim") == b"1"


@pytest.mark.parametrize(("prefix", "kind"), wrong(OF_A_JOB))
async def test_a_dead_workers_jobs_are_released_though_one_has_a_key_of_a_wrong_type(
    client: Client, server: Server, prefix: str, kind: str
) -> None:
    raw_queue = RawQueue(server, "q")
    for name in ("victim", "other"):
        await client.enqueue("q", "plain", id=name)
    await raw_queue.claim(2)
    await spoil(server.redis, f"{prefix}victim", kind)
    given = await raw_queue.engine.release_worker_leases(worker=raw_queue.worker, reason="killed")
    assert given == (1 if prefix == "arq:in-progress:" else 2)
    if prefix == "aq:meta:":
        assert await field(server.redis, "aq:meta:victim", "crashes") == b"1"


@pytest.mark.parametrize("kind", [kind for kind in WRITE if kind != "hash"])
async def test_notes_of_a_running_job_are_written_over_a_key_of_a_wrong_type(
    client: Client, server: Server, kind: str
) -> None:
    raw_queue = RawQueue(server, "q")
    await client.enqueue("q", "plain", id="victim")
    job = await raw_queue.claim_one()
    await spoil(server.redis, "aq:meta:victim", kind)
    await raw_queue.note_progress(job, 50, "half")
    status = await client.job("victim").status()
    assert status.progress is not None


# --- the queue's keys


@pytest.mark.parametrize(("key", "kind"), wrong(OF_A_QUEUE, each=2))
async def test_a_queues_key_of_a_wrong_type_is_named_and_waited_for(
    client: Client, server: Server, server_url: str, key: str, kind: str
) -> None:
    """While it is there the worker neither spins nor loses a job, and goes on by itself once it is gone."""
    runs: Counter[str] = Counter()
    redis = server.redis
    jobs = [await client.enqueue("q", "plain", priority=p, id=f"{p}-{n}") for n in range(3) for p in PRIORITIES]
    dead = await client.enqueue("q", "hopeless")
    await set_aside(redis, key, kind)
    with structlog.testing.capture_logs() as logs:
        async with working(make_agent(runs), server_url, concurrency=2, lease=0.8, rate_max=100) as worker:
            await until(lambda: any(_names(line, key, kind) for line in logs), what="the log names the key")
            before = (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"]
            await asyncio.sleep(0.5)
            assert (await redis.info("commandstats"))["cmdstat_evalsha"]["calls"] - before < 60, "no spin"
            assert sum(_names(line, key, kind) for line in logs) <= 2, "reported once in a while"
            telemetry = worker._telemetry
            assert isinstance(telemetry, WorkerTelemetry)
            assert telemetry.metrics.redis_errors > 0
            await mend(redis, key)
            for job in (*jobs, dead):
                await final(job)
    assert runs == Counter([*(job.id for job in jobs), dead.id]), "each ran once"
    assert [(await job.status()).state for job in jobs] == [State.COMPLETED] * len(jobs)
    counters = (await client.stats("q")).counters
    assert (counters.get("lost", 0), counters.get("crashed", 0)) == (0, 0)


PRIORITIES = ("urgent", "high", "normal", "low")


def _names(line: Any, key: str, kind: str) -> bool:
    named = f"{key} is a {kind}" in str(line.get("error")) or (line.get("key"), line.get("type")) == (key, kind)
    return named and line["log_level"] == "error"


@pytest.mark.parametrize("key", [*LEVELS, "q:dead", "q:dead:fp", "q:done", "q:stats", "q:wake", "arq:abort"])
@pytest.mark.parametrize("end", OUTCOMES)
async def test_a_round_trip_that_a_key_of_a_wrong_type_refused_is_carried_out_once_when_it_is_mended(
    client: Client, server: Server, key: str, end: str
) -> None:
    """Nothing of it has been done by halves: no outcome is lost, or counted twice."""
    redis, raw_queue = server.redis, RawQueue(server, "q")
    for priority in PRIORITIES:
        await client.enqueue("q", "plain", priority=priority, id=priority)
    jobs = await raw_queue.claim(4)
    await set_aside(redis, key, "string")
    refusal = await refusal_of(raw_queue, end, jobs)
    assert not refusal or f"{key} is a string" in refusal
    held = await redis.exists(*(f"arq:in-progress:{job.id}" for job in jobs))
    assert held == (4 if refusal else 0)
    await mend(redis, key)
    if refusal:
        assert not (await end_all(raw_queue, end, jobs)).lost
    for job, level in zip(jobs, LEVELS, strict=True):
        if await redis.zscore(level, job.id) is not None and end in ("completed", "dead"):
            await redis.zadd(level, {job.id: 1})  # it was aside while the job ended: as if the lease had run out
    if end != "released":
        assert not await RawQueue(server, "q").claim(4), "none comes back"
    assert {await place(redis, job.id) for job in jobs} == {OUTCOMES[end][1]}
    assert {(await redis.get(f"arq:retry:{job.id}")) for job in jobs} == {b"1" if end == "retried" else None}
    counters = (await client.stats("q")).counters
    assert (counters.get(end, 0), counters.get("lost", 0)) == (4, 0)
    assert await fields(redis, "q:dead:fp") == ({b"kind": b"4"} if end == "dead" else {})


@pytest.mark.parametrize("key", ["c", "c:dead", "c:seq"])
async def test_a_child_that_a_key_of_a_wrong_type_refused_is_sent_when_it_is_mended(
    client: Client, server_url: str, server: Server, key: str
) -> None:
    agent = Agent("q")

    @agent.job
    async def parent(ctx: Context) -> None:
        for number in range(3):
            ctx.enqueue(("c", "child"), number)

    await spoil(server.redis, key, "hash")
    job = await client.enqueue(parent)
    with structlog.testing.capture_logs() as logs:
        async with working(agent, server_url):
            await until(lambda: any(_names(line, key, "hash") for line in logs) or key == "c:dead", what="it is named")
            await server.redis.delete(key)
            await final(job)
    assert (await job.status()).state is State.COMPLETED
    assert (await client.stats("c")).waiting == 3


async def test_a_producer_that_a_key_of_a_wrong_type_refused_may_send_again(client: Client, server: Server) -> None:
    await spoil(server.redis, "q", "string")
    with pytest.raises(QueueUnavailable, match="WRONGTYPE"):
        await client.enqueue("q", "plain", id="one")
    assert not await server.redis.exists("arq:job:one"), "nothing is left that makes it known"
    await server.redis.delete("q")
    job = await client.enqueue("q", "plain", id="one")
    assert (await job.status()).state is State.WAITING


async def test_jobs_that_run_keep_their_leases_though_another_level_has_a_wrong_type(
    client: Client, server: Server, server_url: str
) -> None:
    work = Work()
    job = await client.enqueue("q", "job", priority="low")
    async with working(work.agent, server_url, lease=0.8), working(work.agent, server_url, lease=0.8):
        await until(lambda: work.runs, what="it runs")
        await spoil(server.redis, "q:urgent", "string")
        await asyncio.sleep(2.5)  # three leases
        assert work.runs == [job.id]
        await server.redis.delete("q:urgent")
        work.go.set()
        await final(job)
    assert (await job.status()).deliveries == 1


async def test_what_the_server_refuses_for_another_reason_is_told_with_it(client: Client, server: Server) -> None:
    await client.enqueue_many([{"queue": "q", "name": "job"}] * 2)
    raw_queue = RawQueue(server, "q")
    await server.redis.execute_command("ACL", "SETUSER", "default", "-lpush")
    try:
        reply = await raw_queue._round_trip(1, ())
    finally:
        await server.redis.execute_command("ACL", "SETUSER", "default", "+lpush")
    assert len(reply.claimed) == 1
    ((queue, why),) = reply.wrong_type_keys
    assert queue == "q"
    assert "can't run this command" in why or "no permissions" in why  # Redis's words and Valkey's
