"""Redis behind Sentinels, with real failovers: worker and clients follow the primary, and no replicated job is lost."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.exceptions import RedisError

from agentqueue import Agent, Client, Context
from agentqueue.clock import monotonic
from agentqueue.errors import QueueUnavailable
from agentqueue.store import Sentinels, Server, ServerOptions, Tls
from agentqueue.wire import State
from agentqueue_worker.process import make_worker, program_of
from agentqueue_worker.settings import Settings
from tests.support.certificates import Certificates, issue
from tests.support.sentinel import MASTER, Watched, run_sentinel, run_watched
from tests.support.servers import RunningServer, free_port, run_server
from tests.support.workers import final, until

pytestmark = pytest.mark.usefixtures("_redis_installed")
FAILOVER = 40.0
"""Seconds within which all goes on after a failover: the Sentinel's own part takes 1 to 4 on a busy machine."""


@pytest.fixture
def watched(_redis_installed: None) -> Iterator[Watched]:
    with run_watched() as running:
        yield running


def options_for(watched: Watched, **changes: Any) -> ServerOptions:
    given = {"connect_timeout": 2.0, "timeout": 3.0, "sentinel": Sentinels(MASTER, watched.nodes)} | changes
    return ServerOptions("redis://", **given)


@contextlib.asynccontextmanager
async def working(agent: Agent, options: ServerOptions) -> AsyncIterator[None]:
    worker = make_worker(program_of(agent, Settings(redis=options, name="w", concurrency=5)))
    running = asyncio.create_task(worker.run())
    try:
        await until(lambda: worker.state.ready or running.done(), what="the worker is ready")
        yield
    finally:
        worker.stop(grace=0.0)
        await asyncio.wait_for(running, 20)


def shop(runs: list[str]) -> Agent:
    agent = Agent("shop")

    @agent.job
    async def sell(ctx: Context, what: str) -> str:
        runs.append(what)
        await asyncio.sleep(0.02)
        return what

    return agent


async def patient(ask: Any) -> Any:
    """An answer, from whichever server is the primary by then."""

    async def try_it() -> Any:
        with contextlib.suppress(QueueUnavailable):
            return await ask()

    return await until(try_it, what="an answer", deadline=FAILOVER)


async def assert_all_done(client: Client, jobs: list[Any]) -> None:
    for job in jobs:
        status = await patient(lambda job=job: job.status())
        if not status.is_final:
            status = await patient(lambda job=job: final(job, deadline=FAILOVER))
        assert status.state is State.COMPLETED
    stats = await client.stats("shop")
    assert (stats.waiting, stats.active, stats.dead) == (0, 0, 0)


# --- failovers


async def test_a_primary_that_dies_under_load_costs_no_replicated_job(watched: Watched) -> None:
    runs: list[str] = []
    options = options_for(watched)
    async with Client.at(options) as client:
        jobs = await client.enqueue_many(
            [{"queue": "shop", "name": "sell", "data": f"item {number}"} for number in range(200)]
        )
        watched.wait_for_replica()
        async with working(shop(runs), options):
            await until(lambda: len(runs) > 20, what="some have run")
            watched.primary.kill()
            await assert_all_done(client, jobs)
            late = await client.enqueue("shop", "sell", "one more")
            assert await late.result(timeout=FAILOVER) == "one more"
    assert {f"item {number}" for number in range(200)} <= set(runs)


async def test_a_swap_while_both_run_is_followed_by_those_who_block_too(watched: Watched) -> None:
    """A planned failover: the old primary lives on as a replica, and must not keep anybody.

    The Sentinel demotes it last; what it took until then is lost, as with every client of Redis (ENGINE 10).
    """
    options = options_for(watched)
    runs: list[str] = []
    async with Client.at(options) as client, working(shop(runs), options):
        await until(lambda: _blocks_on(watched.primary), what="the worker listens")
        watched.fail_over()
        await until(lambda: _role(watched.primary) == "slave", what="the old one is demoted", deadline=FAILOVER)
        await until(lambda: _blocks_on(watched.replica), what="it listens at the new primary", deadline=FAILOVER)
        job = await patient(lambda: client.enqueue("shop", "sell", "pen", id="pen"))
        assert await job.result(timeout=FAILOVER) == "pen"
        with watched.replica.client() as new:
            assert new.exists("arq:result:pen")


async def test_a_primary_that_hangs_is_left(watched: Watched) -> None:
    """It accepts connections and answers nothing, as a paused machine does."""
    options = options_for(watched)
    runs: list[str] = []
    async with Client.at(options) as client, working(shop(runs), options):
        await (await client.enqueue("shop", "sell", "before")).result(timeout=20)
        watched.wait_for_replica()
        watched.primary.freeze()
        job = await patient(lambda: client.enqueue("shop", "sell", "after", id="after"))
        assert await job.result(timeout=FAILOVER) == "after"


async def test_a_check_in_the_middle_of_a_failover_asks_again(watched: Watched) -> None:
    """The Sentinel still names a server that is a replica by now: no reason for a worker to give up."""
    server = Server(options_for(watched))
    try:
        await server.check()
        with watched.primary.client() as old:
            old.replicaof("127.0.0.1", watched.replica.port)
        with pytest.raises(QueueUnavailable, match="a failover is under way"):
            await server.check()
    finally:
        await server.close()


def _role(server: RunningServer) -> str:
    with contextlib.suppress(RedisError), server.client() as client:  # a Sentinel ends them all as it demotes it
        return str(client.info("replication")["role"])
    return "?"


def _blocks_on(server: RunningServer) -> bool:
    with contextlib.suppress(RedisError), server.client() as client:
        return any(it["cmd"] == "blpop" for it in client.client_list())
    return False


# --- finding the primary


async def test_a_sentinel_that_hangs_costs_nothing() -> None:
    with run_watched(sentinels=2) as watched:
        watched.sentinels[0].process.send_signal(signal.SIGSTOP)
        began = monotonic()
        async with Server(options_for(watched)) as server:
            assert await server.redis.ping()
        assert monotonic() - began < 1.5, "the one that answers was not waited for"


async def test_the_sentinels_own_password() -> None:
    with run_watched(config={"requirepass": "s3cret"}) as watched:
        told = Sentinels(MASTER, watched.nodes, "s3cret")
        async with Server(options_for(watched, sentinel=told)) as server:
            assert await server.redis.ping()
        for wrong in (None, "other"):
            with pytest.raises(QueueUnavailable, match="AGENTQUEUE_REDIS_SENTINEL_PASSWORD"):
                async with Server(options_for(watched, sentinel=Sentinels(MASTER, watched.nodes, wrong))):
                    pass


async def test_the_primarys_password_user_and_database_come_from_the_url() -> None:
    with (
        run_server("redis", requirepass="p@ss") as primary,
        run_sentinel(primary.port) as sentinel,
    ):
        with sentinel.client() as client:
            client.execute_command("SENTINEL", "SET", MASTER, "auth-pass", "p@ss")
        where = Sentinels(MASTER, (("127.0.0.1", sentinel.port),))
        options = ServerOptions("redis://default:p%40ss@/3", sentinel=where)

        async def connected() -> bool:
            with contextlib.suppress(QueueUnavailable):
                async with Server(options) as server:
                    await server.redis.set("here", "1")
                    return True
            return False

        await until(connected, what="the Sentinel takes the primary for up", deadline=20)
        with primary.client(db=3) as third:
            assert third.get("here") == b"1"


@pytest.mark.parametrize(
    ("master", "port", "says"),
    [
        pytest.param(
            "other", None, f"knows no primary of that name, only {MASTER}; check the primary's name", id="name"
        ),
        pytest.param(MASTER, 1, r"127.0.0.1:1 does not answer .* check the Sentinels' addresses", id="address"),
    ],
)
async def test_why_there_is_no_primary(watched: Watched, master: str, port: int | None, says: str) -> None:
    nodes = watched.nodes if port is None else (("127.0.0.1", port),)
    with pytest.raises(QueueUnavailable, match=says):
        async with Server(options_for(watched, sentinel=Sentinels(master, nodes))):
            pass


async def test_a_primary_that_is_down_is_waited_for(watched: Watched) -> None:
    watched.replica.kill()
    watched.primary.kill()

    async def says_so() -> bool:
        try:
            async with Server(options_for(watched)):
                return False
        except QueueUnavailable as exc:
            return "takes the primary for down; wait for the failover" in str(exc)

    await until(says_so, what="the Sentinel has seen it", deadline=20)


# --- TLS


@pytest.fixture
def certificates(tmp_path: Any) -> Certificates:
    return issue(tmp_path, "127.0.0.1", "localhost")


async def test_servers_and_sentinels_over_tls(certificates: Certificates) -> None:
    """One setting for both: Sentinels that speak TLS name the primary's port of TLS."""
    port, sentinel_port = free_port(), free_port()
    secure = certificates.server_config(port)
    with (
        run_server("redis", **secure, **{"tls-replication": "yes"}),
        run_sentinel(port, **(certificates.server_config(sentinel_port) | {"tls-replication": "yes"})),
    ):
        where = Sentinels(MASTER, (("127.0.0.1", sentinel_port),))

        async def connected() -> bool:
            with contextlib.suppress(QueueUnavailable):
                async with Client("redis://", sentinel=where, tls=certificates.tls) as client:
                    job = await client.enqueue("shop", "sell", "pen")
                    return (await job.status()).state is State.WAITING
            return False

        await until(connected, what="a job over TLS", deadline=20)
        with pytest.raises(QueueUnavailable, match="AGENTQUEUE_REDIS_CA_FILE"):
            async with Server(ServerOptions("rediss://", sentinel=where, tls=Tls(skip_verify=False))):
                pass
