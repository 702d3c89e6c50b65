"""Tests of housekeeping for queues without workers, by the operator and by `agentqueue up`."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import pytest

from agentqueue import Client
from agentqueue.clock import monotonic
from agentqueue.keys import ABORT, DEAD, IN_PROGRESS, JOB, QUEUES
from agentqueue.spec.defaults import ScalingMode
from agentqueue.store import Engine, EngineSettings, Server, ServerOptions, Store
from agentqueue_operator.autoscaling.model import Load, ScalingPolicy
from agentqueue_operator.queues.housekeeper import Housekeeper
from agentqueue_operator.queues.ports import HousekeepingResult, Retention
from agentqueue_operator.queues.reader import QueueReader
from tests.support.hosts import KEEPS, OperatorReplica, replicas_in, status_in, up_running
from tests.support.raw_queue import RawQueue
from tests.support.replies import awaited, fields
from tests.support.servers import RunningServer
from tests.support.workers import Work, final, until, working

if TYPE_CHECKING:
    from redis.asyncio import Redis

BOUND = 10.0
"""Deadline in seconds after the end of a lease, or after housekeeping of the queue has started."""
DEADLINE = 2 * BOUND
SHORT = EngineSettings(lease_ms=200)


@pytest.fixture
async def client(server_url: str) -> AsyncIterator[Client]:
    async with Client(server_url) as connected:
        yield connected


# --- the duties


@dataclass
class Given:
    """A queue whose workers are all lost."""

    server: Server
    client: Client
    queue: str

    @property
    def redis(self) -> "Redis":
        return self.server.redis

    async def now_ms(self) -> int:
        seconds, micros = await self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def state(self, name: str) -> str:
        return str((await self.client.status(self.id(name), queue=self.queue)).state)

    def id(self, name: str) -> str:
        return f"{self.queue}/{name}"

    async def claim(self, name: str, *, worker: str = "dead-1", delay: float = 0.0) -> None:
        """Claim the job with a worker that sends no heartbeat afterwards."""
        await self.client.enqueue(self.queue, "job", id=self.id(name), delay=delay)
        reply = await Engine(self.server, self.queue, SHORT).finish_and_claim(
            seq=1, owner=f"{worker}/{self.id(name)}", want=1
        )
        assert [job.id for job in reply.claimed] == [self.id(name)]


Duty = tuple[Callable[[Given], Awaitable[Any]], Callable[[Given], Awaitable[Any]]]
DUTIES: dict[str, Duty] = {}


class ADuty(Protocol):
    """A task of housekeeping: `left` creates it, and `is_done` returns whether it was done."""

    @staticmethod
    async def left(given: Given) -> None: ...

    @staticmethod
    async def is_done(given: Given) -> bool: ...


def duty(made: type[ADuty]) -> type[ADuty]:
    """Register a task."""
    DUTIES[made.__name__] = (made.left, made.is_done)
    return made


@duty
class ARunOutLeaseIsReaped:
    @staticmethod
    async def left(given: Given) -> None:
        await given.claim("held")

    @staticmethod
    async def is_done(given: Given) -> bool:
        return await given.state("held") == "waiting"


@duty
class AJobThatNobodyRecordedAsHeldIsReaped:
    @staticmethod
    async def left(given: Given) -> None:
        await given.claim("lapsed")
        await given.redis.delete(IN_PROGRESS + given.id("lapsed"))

    @staticmethod
    async def is_done(given: Given) -> bool:
        return await given.state("lapsed") == "waiting"


@duty
class AJobThatSomebodyElseMarkedAsHeldIsReaped:
    @staticmethod
    async def left(given: Given) -> None:
        await given.claim("spoilt")
        await given.redis.set(IN_PROGRESS + given.id("spoilt"), "garbage")

    @staticmethod
    async def is_done(given: Given) -> bool:
        return await given.state("spoilt") == "waiting"


@duty
class APlainArqWorkersJobIsReapedOnceItsKeyHasExpired:
    @staticmethod
    async def left(given: Given) -> None:
        await given.claim("arqs")
        await given.redis.set(IN_PROGRESS + given.id("arqs"), b"1", px=1_500)

    @staticmethod
    async def is_done(given: Given) -> bool:
        return await given.state("arqs") == "waiting"


@duty
class ACancelledJobOfADeadWorkerIsReapedAndStaysAskedFor:
    @staticmethod
    async def left(given: Given) -> None:
        await given.claim("cancelled")
        await given.client.cancel(given.id("cancelled"), queue=given.queue)

    @staticmethod
    async def is_done(given: Given) -> bool:
        asked = await given.redis.zscore(ABORT, given.id("cancelled"))
        return await given.state("cancelled") == "waiting" and asked is not None


@duty
class ADelayedJobThatArqAbortedComesToTheHead:
    @staticmethod
    async def left(given: Given) -> None:
        await given.client.enqueue(given.queue, "job", id=given.id("aborted"), delay=3_600)
        await given.redis.zadd(ABORT, {given.id("aborted"): await given.now_ms()})

    @staticmethod
    async def is_done(given: Given) -> bool:
        return await given.state("aborted") == "waiting"


@duty
class AnAbortOfNoJobIsDropped:
    @staticmethod
    async def left(given: Given) -> None:
        await given.redis.zadd(ABORT, {given.id("nobodys"): 1})

    @staticmethod
    async def is_done(given: Given) -> bool:
        return await given.redis.zscore(ABORT, given.id("nobodys")) is None


@duty
class ArqsExpiryIsCleared:
    @staticmethod
    async def left(given: Given) -> None:
        await given.client.enqueue(given.queue, "job", id=given.id("expiring"), delay=60)
        await given.redis.pexpire(JOB + given.id("expiring"), 86_400_000 + 60_000)

    @staticmethod
    async def is_done(given: Given) -> bool:
        return bool(await given.redis.pttl(JOB + given.id("expiring")) == -1)


@duty
class ADeadWorkerAndItsMarkAreForgotten:
    @staticmethod
    async def left(given: Given) -> None:
        await awaited(given.redis.hset(f"{given.queue}:workers", "gone", f"{await given.now_ms() - 61_000}|{{}}"))
        await awaited(given.redis.hset(f"{given.queue}:drain", "gone", "1"))

    @staticmethod
    async def is_done(given: Given) -> bool:
        for of in ("workers", "drain"):
            if await awaited(given.redis.hexists(f"{given.queue}:{of}", "gone")):
                return False
        return True


@duty
class AHeartbeatThatSomebodyElseWroteIsForgotten:
    @staticmethod
    async def left(given: Given) -> None:
        await awaited(given.redis.hset(f"{given.queue}:workers", "theirs", "garbage"))
        await awaited(given.redis.hset(f"{given.queue}:drain", "theirs", "garbage"))

    @staticmethod
    async def is_done(given: Given) -> bool:
        return not await awaited(given.redis.hexists(f"{given.queue}:workers", "theirs"))


@duty
class TheHistoryEnds:
    @staticmethod
    async def left(given: Given) -> None:
        older = await given.now_ms() - KEEPS.history_s * 1000
        await given.redis.zadd(f"{given.queue}:done", {"old": older - 1_000, "young": older + 600_000})

    @staticmethod
    async def is_done(given: Given) -> bool:
        return bool(await given.redis.zrange(f"{given.queue}:done", 0, -1) == [b"young"])


@duty
class DeadLettersEnd:
    @staticmethod
    async def left(given: Given) -> None:
        raw_queue = RawQueue(given.server, given.queue)
        for name in ("old", "young"):
            await given.client.enqueue(given.queue, "job", id=given.id(name))
            await raw_queue.add_dead_letter(await raw_queue.claim_one())
        older = await given.now_ms() - KEEPS.dead_s * 1000
        await given.redis.zadd(f"{given.queue}:dead", {given.id("old"): older - 1_000})

    @staticmethod
    async def is_done(given: Given) -> bool:
        kept = await given.redis.zrange(f"{given.queue}:dead", 0, -1)
        return kept == [given.id("young").encode()] and not await given.redis.exists(DEAD + given.id("old"))


@duty
class AQueueThatOnlyArqsClientsUseIsKnown:
    @staticmethod
    async def left(given: Given) -> None:
        await awaited(given.redis.srem(QUEUES, given.queue))

    @staticmethod
    async def is_done(given: Given) -> bool:
        return bool(await awaited(given.redis.sismember(QUEUES, given.queue)))


@duty
class NotesOfTheHousekeepingThatSomebodyElseWroteAreWrittenAnew:
    @staticmethod
    async def left(given: Given) -> None:
        await given.redis.mset({f"{given.queue}:reaped": "garbage", f"{given.queue}:sweep": "9|garbage"})

    @staticmethod
    async def is_done(given: Given) -> bool:
        return b"garbage" not in b"".join(await given.redis.mget(f"{given.queue}:reaped", f"{given.queue}:sweep"))


async def leave_all(given: Given) -> None:
    """Create all tasks in one queue."""
    for left, _ in DUTIES.values():
        await left(given)


async def undone(given: Given) -> list[str]:
    """Return the tasks that are not done."""
    return [name for name, (_, is_done) in DUTIES.items() if not await is_done(given)]


async def until_done(givens: list[Given]) -> None:
    """Wait until all tasks in all queues are done."""
    left: dict[str, list[str]] = {}

    async def are_done() -> bool:
        left.update({given.queue: await undone(given) for given in givens})
        return not any(left.values())

    try:
        await until(are_done, deadline=DEADLINE)
    except AssertionError:
        raise AssertionError(
            f"not done in {DEADLINE} s: { {q: names for q, names in left.items() if names} }"
        ) from None


MODES: dict[str, dict[str, Any]] = {
    "auto": {},
    "paused": {},
    "suspended": {"suspend": True},
    "hands-off": {"hands_off": True},
    "external": {"mode": "External"},
    "fixed": {"mode": "Fixed", "replicas": 0},
}


async def test_the_operator_does_every_duty_of_workers_for_each_agentqueue_that_it_leads(
    client: Client, server: Server, server_url: str
) -> None:
    home, givens = OperatorReplica(server_url), [Given(server, client, queue) for queue in MODES]
    clusters = {queue: home.add(queue, **given) for queue, given in MODES.items()}
    for given in givens:
        await leave_all(given)
    await client.pause("paused", note="for the night")
    async with home.running():
        await until_done(givens)
        auto = clusters["auto"]
        await until(lambda: (replicas_in(auto) or 0) > 0, what="pods are asked for")
        await until(lambda: status_in(auto).get("waiting"), what="the status shows waiting jobs")
        assert replicas_in(clusters["paused"]) == 0
        assert replicas_in(clusters["suspended"]) == 0


async def test_up_does_every_duty_of_workers(client: Client, server: Server, server_url: str) -> None:
    policies = {
        "auto": ScalingPolicy(),
        "paused": ScalingPolicy(),
        "suspended": ScalingPolicy(suspended=True),
        "external": ScalingPolicy(mode=ScalingMode.EXTERNAL),
        "fixed": ScalingPolicy(mode=ScalingMode.FIXED, replicas=0),
    }
    givens = [Given(server, client, queue) for queue in policies]
    for given in givens:
        await leave_all(given)
    await client.pause("paused", note="for the night")
    async with up_running(server_url, policies) as agent:
        await until_done(givens)
        await until(lambda: agent("auto").wanted > 0, what="workers are wanted")
        assert agent("suspended").wanted == agent("paused").wanted == 0


async def test_a_replica_that_stands_by_or_stops_leading_keeps_its_hands_off(
    client: Client, server: Server, server_url: str
) -> None:
    given = Given(server, client, "auto")
    await given.claim("held")
    standby, leader = OperatorReplica(server_url, leads=False), OperatorReplica(server_url)
    for home in (standby, leader):
        home.add("auto")
    async with standby.running():
        assert await given.redis.exists("auto:reaped") == 0
        async with leader.running():
            await until(lambda: given.redis.exists("auto:reaped"), what="the leader keeps house")
        leader.leads = False
        assert await given.state("held") == "active"
        standby.leads = True  # it takes over
        await until(lambda: _is_waiting(given, "held"), what="the job waits again", deadline=DEADLINE)


async def test_a_first_job_is_seen_though_the_replica_that_heard_of_it_is_gone(
    client: Client, server: Server, server_url: str
) -> None:
    """A lost worker has taken the only wake-up token of the queue."""
    leader, standby = OperatorReplica(server_url), OperatorReplica(server_url, leads=False)
    leader.add("auto")
    cluster = standby.add("auto")

    async def listens() -> bool:
        return any(row["cmd"] == "blpop" for row in await server.redis.client_list())

    async with standby.running():
        async with leader.running():
            await until(listens, what="the leader listens")
            await client.enqueue("auto", "job")
            await until(lambda: _is_taken(server), what="the token is taken")
        standby.leads = True
        await until(lambda: (replicas_in(cluster) or 0) > 0, what="a pod is asked for", deadline=DEADLINE)


async def _is_taken(server: Server) -> bool:
    return await awaited(server.redis.llen("auto:wake")) == 0


async def _is_waiting(given: Given, name: str) -> bool:
    return await given.state(name) == "waiting"


async def test_a_visit_costs_one_round_trip_and_almost_nothing_where_a_worker_was(
    server: Server, shared_server: RunningServer
) -> None:
    reader, queues = QueueReader(server), {f"q{n}": Retention() for n in range(3)}
    await reader.run_housekeeping(queues)  # loads the script

    async def commands() -> dict[str, int]:
        found = await server.redis.info("commandstats")
        return {name.removeprefix("cmdstat_"): row["calls"] for name, row in found.items()}

    async def cost() -> dict[str, int]:
        before = await commands()
        await reader.run_housekeeping(queues)
        after = await commands()
        spent = {name: calls - before.get(name, 0) for name, calls in after.items()}
        return {name: calls for name, calls in spent.items() if calls and name not in ("info", "client|setinfo")}

    for queue in queues:
        await Engine(server, queue).renew(owner="w/1", worker="w", heartbeat=b"{}", held=())
    assert await cost() == {"evalsha": 3, "time": 3, "get": 3}
    with shared_server.client() as plain:
        plain.delete(*(f"{queue}:reaped" for queue in queues))
    spent = await cost()
    assert spent.pop("evalsha") == 3
    assert sum(spent.values()) <= 3 * 25, spent


async def test_each_job_counts_once_while_its_worker_dies(client: Client, server: Server) -> None:
    reader, raw_queue = QueueReader(server), RawQueue(server, "work")

    async def load() -> Load:
        return (await reader.read({"work": 1.0}))["work"].load

    for _ in range(3):
        await client.enqueue("work", "job")
    await raw_queue.claim(2)
    beat = b'{"busy": 2, "slots": 2, "draining": false}'
    await raw_queue.heartbeat(beat)
    seen = await load()
    assert (seen.ready, seen.active, seen.stalled, seen.jobs) == (1, 2, 0, 3)
    await server.redis.delete("work:workers")  # as 8 s later: it is not heard any more, its leases are about to end
    seen = await load()
    assert (seen.ready, seen.active, seen.stalled, seen.jobs) == (1, 0, 2, 3)
    await raw_queue.heartbeat(beat)
    held = await server.redis.zrangebyscore("work", "-inf", "(0")
    await server.redis.zadd("work", dict.fromkeys(held, -1))  # its leases end; another worker lives
    seen = await load()
    assert (seen.ready, seen.active, seen.stalled, seen.jobs) == (1, 0, 2, 3)
    assert (await client.stats("work")).stalled == 2
    await Engine(server, "work").release_worker_leases(worker="hand", reason="it died")
    seen = await load()
    assert (seen.ready, seen.active, seen.stalled, seen.jobs) == (3, 0, 0, 3)


async def test_a_heartbeat_that_nobody_can_read_costs_no_look(server: Server, client: Client) -> None:
    await client.enqueue("work", "job")
    await awaited(
        server.redis.hset("work:workers", mapping={"a": "garbage", "b": "|", "c": b"\xff|\xff", "d": f"{2**70}|{{}}"})
    )
    await awaited(server.redis.hset("work:drain", mapping={"a": "garbage"}))
    await awaited(server.redis.hset("work:stats", mapping={"completed": "garbage"}))
    look = (await QueueReader(server).read({"work": 1.0}))["work"]
    assert (look.load.ready, look.heartbeats, look.marked) == (1, {}, {"a": 0})
    assert (await client.stats("work")).workers == ()
    assert await Store(server).history("work", until_ms=0, minutes=1) == [(0, {})]


async def test_a_mark_that_nobody_can_read_is_none(server: Server) -> None:
    raw_queue = RawQueue(server, "work")
    await awaited(server.redis.hset("work:drain", mapping={raw_queue.worker: "garbage"}))
    reply = await raw_queue.engine.renew(owner=raw_queue.owner, worker=raw_queue.worker, heartbeat=b"{}", held=())
    assert (reply.drain_requested_ms, reply.lost, reply.paused) == (0, [], False)


@pytest.mark.parametrize("key", ["q1", "q1:workers", "q1:drain", "q1:stats", "q1:dead", "q1:done", "q1:urgent"])
async def test_a_queue_that_can_not_be_read_costs_the_others_nothing(server: Server, client: Client, key: str) -> None:
    for queue in ("q1", "q2"):
        await client.enqueue(queue, "job")
    await server.redis.delete(key)
    await server.redis.xadd(key, {"they": "theirs"})
    looks = await QueueReader(server).read({"q1": 1.0, "q2": 1.0})
    assert {queue: look.load.ready for queue, look in looks.items()} == {"q2": 1}


async def test_what_can_not_be_done_is_reported_and_the_rest_is_done(server: Server, client: Client) -> None:
    given = Given(server, client, "work")
    await given.claim("held")
    await server.redis.set("work:workers", "theirs")
    results: list[HousekeepingResult] = []
    reader = QueueReader(server)
    keeper = Housekeeper(lambda: reader, results.append)
    keeper.retentions = {"work": Retention()}
    running = asyncio.create_task(keeper.run())
    try:
        await until(lambda: any(visit.released for visit in results), what="the job is given back", deadline=DEADLINE)
    finally:
        running.cancel()
    assert await given.state("held") == "waiting"
    assert {why for visit in results for why in visit.skipped.values()} == {"work:workers is string"}


async def test_an_outage_of_redis_takes_no_job_from_a_worker_that_lives(
    start_server: Callable[..., RunningServer],
) -> None:
    """The server hangs for longer than a lease, and housekeepers run the moment it answers again."""
    redis, work = start_server(), Work()
    async with (
        Client(redis.url) as client,
        Server(ServerOptions(redis.url, timeout=0.5)) as server,
        working(work.agent, redis.url, concurrency=2),
    ):
        jobs = [await client.enqueue(work.job) for _ in range(2)]
        await until(lambda: len(work.runs) == 2, what="both run")
        reader, housekeepers = QueueReader(server), []
        for _ in range(3):
            housekeepers.append(Housekeeper(lambda: reader, lambda _: None))
            housekeepers[-1].retentions = {"q": Retention()}
        visits = [asyncio.create_task(one.run()) for one in housekeepers]
        await until(lambda: server.redis.exists("q:reaped"), what="somebody keeps house")
        redis.freeze()
        frozen = monotonic()
        await until(lambda: monotonic() > frozen + 10.0, what="all leases are over", deadline=15)
        redis.thaw()
        before = await _seen(server)
        await until(lambda: _has_renewed(server, before), what="the worker has renewed its leases")
        held = int((await server.redis.get("q:reaped")).split(b"|")[1])
        await until(lambda: _is_past(server, held), what="leases are reaped again")
        work.go.set()
        for job in jobs:
            status = await final(job)
            assert (status.state, status.deliveries) == ("completed", 1)
        stats = await client.stats("q")
        assert (stats.counters.get("crashed", 0), stats.counters.get("lost", 0), len(work.runs)) == (0, 0, 2)
        for visit in visits:
            visit.cancel()


async def _seen(server: Server) -> list[bytes]:
    return [row.split(b"|")[0] for row in (await fields(server.redis, "q:workers")).values()]


async def _has_renewed(server: Server, before: list[bytes]) -> bool:
    return await _seen(server) != before


async def _is_past(server: Server, ms: int) -> bool:
    stamp = await server.redis.get("q:reaped")
    return int(stamp.split(b"|")[0]) >= ms


async def test_no_number_of_other_requests_or_workers_hides_what_is_to_be_done(server: Server, client: Client) -> None:
    """With 1,000 other cancellation requests and 1,000 live workers, one lost job of each kind is still handled."""
    given, reader = Given(server, client, "work"), QueueReader(server)
    others = [f"other-{n}" for n in range(1_000)]
    await server.redis.mset({JOB + job_id: b"{}" for job_id in others})
    await server.redis.zadd(ABORT, dict.fromkeys(others, 1))
    await ADelayedJobThatArqAbortedComesToTheHead.left(given)
    now = await given.now_ms()
    await awaited(server.redis.hset("work:workers", mapping=dict.fromkeys(others, f"{now}|{{}}")))
    await ADeadWorkerAndItsMarkAreForgotten.left(given)

    async def visit() -> bool:
        await reader.run_housekeeping({"work": Retention()})
        await server.redis.delete("work:reaped")
        return await ADelayedJobThatArqAbortedComesToTheHead.is_done(
            given
        ) and await ADeadWorkerAndItsMarkAreForgotten.is_done(given)

    await until(visit, what="both are found")
    assert await awaited(server.redis.hlen("work:workers")) == 1_000
