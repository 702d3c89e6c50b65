"""Workers and clients over TLS and behind Sentinels: they follow the primary, and no replicated job is lost."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError

from agentqueue import Agent, Client, Context
from agentqueue.errors import QueueUnavailable
from agentqueue.model.job import State
from agentqueue.store import Sentinels, ServerOptions, connection_environment
from agentqueue_worker.process import make_worker, program_of
from agentqueue_worker.settings import Settings
from tests.support.certificates import issue
from tests.support.sentinel import MASTER, Watched, run_watched
from tests.support.servers import RunningServer, free_port, run_server
from tests.support.waiting import final, until
from tests.support.workers import worker_process

FAILOVER = 40.0
"""Seconds within which all goes on after a failover: the Sentinel's own part takes 1 to 4 on a busy machine."""
SHOP = """
from agentqueue import Agent, Context

agent = Agent("shop")


@agent.job
async def sell(ctx: Context) -> str:
    return "sold"
"""
ARQ = """
from arq import func


async def sell(ctx):
    await ctx["redis"].set("seen", "by the program's own pool")
    return "sold"


class WorkerSettings:
    functions = [func(sell, name="sell")]
    queue_name = "shop"
"""


@pytest.fixture
def watched(_redis_installed: None) -> Iterator[Watched]:
    with run_watched() as running:
        yield running


def options_for(watched: Watched) -> ServerOptions:
    sentinels = Sentinels(MASTER, watched.nodes)
    return ServerOptions("redis://", connect_timeout=2.0, timeout=3.0, sentinel=sentinels)


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


def _role(server: RunningServer) -> str:
    with contextlib.suppress(RedisError), server.client() as client:  # a Sentinel ends them all as it demotes it
        return str(client.info("replication")["role"])
    return "?"


def _blocks_on(server: RunningServer) -> bool:
    with contextlib.suppress(RedisError), server.client() as client:
        return any(it["cmd"] == "blpop" for it in client.client_list())
    return False


# --- worker processes, as pods have it: everything from variables, files for the certificates


def use(options: ServerOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in connection_environment(options).items():
        monkeypatch.setenv(name, value)


async def sold(target: str, folder: Path, options: ServerOptions) -> None:
    with worker_process(target, folder, options.url):
        async with Client() as client:
            status = await final(await client.enqueue("shop", "sell"), deadline=30)
    assert (status.state, status.result) == (State.COMPLETED, "sold")


@pytest.mark.parametrize(
    ("module", "target"), [(SHOP, "shop:agent"), (ARQ, "shop:WorkerSettings")], ids=["agent", "arq-program"]
)
@pytest.mark.usefixtures("_redis_installed")
async def test_a_worker_and_a_client_over_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, target: str
) -> None:
    certificates, port = issue(tmp_path / "certificates", "localhost"), free_port()
    (tmp_path / "shop.py").write_text(module)
    with run_server("redis", certificates.server_config(port)) as server:
        options = ServerOptions(f"redis://localhost:{port}", tls=certificates.tls)
        use(options, monkeypatch)
        await sold(target, tmp_path, options)
        with server.client() as plain:
            assert plain.zcard("shop:done") == 1
            assert plain.exists("seen") == (module is ARQ)


async def test_an_arq_program_behind_a_sentinel(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "shop.py").write_text(ARQ)
    options = options_for(watched)
    use(options, monkeypatch)
    await sold("shop:WorkerSettings", tmp_path, options)
    with watched.primary.client() as plain:
        assert plain.exists("seen")
