"""Redis users with few rights: the rule that `agentqueue acl` prints is enough, and no command of it is for nothing."""

import asyncio
import json
import shlex
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from agentqueue import Agent, Client, Context, Fatal
from agentqueue.cli.main import run
from agentqueue.client import Job
from agentqueue.errors import QueueUnavailable
from agentqueue.keys import Level
from agentqueue.model.job import JobRecord, State, encode_job
from agentqueue.model.new_job import NewJob
from agentqueue.store import Server, ServerOptions, acl
from agentqueue.store.jobs import Store
from agentqueue.store.signals import send_signal
from agentqueue_operator.controller.redis_pool import RedisPool
from agentqueue_operator.controller.status.reasons import Reason
from agentqueue_operator.queues.ports import Retention
from agentqueue_operator.queues.reader import QueueReader
from tests.support.pages import Page
from tests.support.raw_queue import RawQueue
from tests.support.replies import plain
from tests.support.servers import RunningServer
from tests.support.waiting import until
from tests.support.workers import working

ROOT = Path(__file__).parents[2]
QUEUE = "rights"
COMMANDS = (
    ["stats"],
    ["stats", QUEUE],
    ["jobs", QUEUE],
    ["jobs", QUEUE, "--state", "completed"],
    ["status", "one"],
    ["dead", "list"],
    ["explain", QUEUE],
)
RARE = {
    "HEXISTS": "an id without a record",
    "ZMSCORE": "jobs that somebody asked to cancel",
    "CLIENT|SETNAME": "only for ?client_name= in the URL",
    "SELECT": "only for a database other than 0",
    "PERSIST": "a plain arq client's record, which expires",
    "PTTL": "a plain arq client's record, which expires",
    "TYPE": "a key that somebody else has spoilt",
    "INCR": "an attempt that failed",
    "RPOP": "a rate limit whose window has passed",
    "LINDEX": "a rate limit",
    "ZREMRANGEBYRANK": "a history over its bound",
    "HRANDFIELD": "a sweep",
    "ZSCAN": "a sweep",
    "HMGET": "a dead letter that goes",
    "HSCAN": "a parent that waits for lost children",
    "HLEN": "a job that wakes in the worker that has suspended it",
    "HSTRLEN": "a child that is replayed",
    "XINFO": "the end of a stream; servers count it by its subcommand",
    "XDEL": "a stream that is rewound",
    "XRANGE": "a stream whose job runs again",
    "XTRIM": "a long stream",
}
"""Commands that the workload below may not reach, and what needs them."""


@pytest.fixture
def restricted(shared_server: RunningServer, server_url: str) -> Iterator[str]:
    """The URL of a user that has exactly the rule's rights."""
    yield make_user(shared_server, acl.rule("worker", [QUEUE, "other"]))
    with shared_server.client() as admin:
        admin.execute_command("ACL DELUSER", "worker")


def make_user(server: RunningServer, rule: str) -> str:
    with server.client() as admin:
        admin.execute_command(*shlex.split(rule.replace(">PASSWORD", ">pw")))
    return f"redis://worker:pw@{server.host}:{server.port}/0"


async def dead(client: Client, count: int) -> bool:
    return (await client.stats(QUEUE)).dead >= count


async def is_suspended(job: Job[None]) -> bool:
    return (await job.status()).state is State.SUSPENDED


async def is_final(job: Job[None]) -> bool:
    return (await job.status()).is_final


async def work(url: str) -> None:
    """What clients, workers, commands, the console and the operator do with a queue."""
    agent = Agent(QUEUE)
    seen = asyncio.Event()

    @agent.job
    async def fine(ctx: Context) -> int:
        await ctx.progress(50)
        await ctx.emit("half")
        await ctx.step("sleep", asyncio.sleep, 0)
        ctx.enqueue(fine_too, id=f"child-of-{ctx.id}")
        return 1

    @agent.job
    async def fine_too(ctx: Context) -> None:
        seen.set()

    @agent.job
    async def parent(ctx: Context) -> None:
        await ctx.gather([ctx.child(fine_too), ctx.child(fine, delay=3600)])

    @agent.job(attempts=2, backoff=0.0)
    async def bad(ctx: Context) -> None:
        raise Fatal("no")

    @agent.job(attempts=2, backoff=0.0)
    async def worse(ctx: Context) -> None:
        raise ValueError

    async with Client(url) as client, Server(ServerOptions(url)) as server:
        job = await client.enqueue(fine, id="one")
        await client.enqueue(bad, id="two")
        await client.enqueue(worse, id="five")
        await client.enqueue(fine, id="three", delay=3600)
        await client.enqueue(QUEUE, "fine", id="four", priority="low", delay=3600)
        async with working(agent, url, rate_max=1000, completed_count=1):
            await job.result(20)
            assert [event.type async for event in job.stream()] == ["data", "end"]
            await asyncio.wait_for(seen.wait(), 20)
            await until(lambda: dead(client, 2), what="two dead letters")
            waiting = await client.enqueue(parent, id="parent")
            await until(lambda: is_suspended(waiting), what="a parent that waits for its children")
            await waiting.cancel()
            await until(lambda: is_final(waiting), what="a cancelled parent")
        for job_id in ("one", "two", "three"):
            await client.status(job_id)
        await client.cancel("three")
        await client.pause(QUEUE)
        await client.resume(QUEUE)
        await client.dead_letters(QUEUE)
        await client.dead_groups(QUEUE)
        await client.replay(QUEUE, "two")
        await client.discard(QUEUE, "five")
        raw_queue = RawQueue(server, QUEUE)
        claimed = await raw_queue.claim(1)
        await raw_queue.suspend(claimed[0], "approval")
        store = Store(server)
        assert await send_signal(store, QUEUE, claimed[0].id, "approval", b"1") == "sent"
        claimed = await raw_queue.claim(1)
        assert await send_signal(store, QUEUE, claimed[0].id, "approval", b"2") == "sent"
        reader = QueueReader(server)
        await reader.read({QUEUE: 10.0})
        await reader.mark(QUEUE, "w", drain=True, keep_s=60)
        await reader.keep_marks(QUEUE, 60)
        await reader.run_housekeeping({QUEUE: Retention()})
        await reader.release_leases_of_worker(QUEUE, "hand", "gone")
        await reader.publish({QUEUE: b"{}"})
        await reader.wait_for_jobs([QUEUE], 0.01)
        assert claimed
        record = encode_job(JobRecord(name="fine", enqueued_ms=1, queue=QUEUE))
        await store.tick("cron", 1, NewJob(QUEUE, "cron:1", record, Level.NORMAL))
        await client.stats()
    line = RedisPool().acquire(ServerOptions(url))
    assert await line.check() is None
    await line.close()


def denials(admin: redis.Redis) -> list[tuple[str, str]]:
    """What users were refused: reason and object. redis-py ignores a refusal of CLIENT SETINFO."""
    found = [(it["reason"], it["object"]) for it in plain(admin.acl_log())]
    return [it for it in found if it != ("command", "client|setinfo")]


async def commands_seen(admin: redis.Redis) -> set[str]:
    found = plain(await asyncio.to_thread(admin.info, "commandstats"))
    return {name.removeprefix("cmdstat_").upper() for name, told in found.items() if told["calls"]}


async def test_the_rule_is_enough_and_nothing_of_it_is_for_nothing(
    restricted: str, shared_server: RunningServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with shared_server.client() as admin:
        admin.script_flush()  # an earlier test may have loaded them
        admin.config_resetstat()
        admin.execute_command("ACL LOG", "RESET")
        await work(restricted)
        for words in COMMANDS:
            assert await asyncio.to_thread(run, [*words, "--redis", restricted]) == 0, capsys.readouterr().err
        seen = await commands_seen(admin)
        assert denials(admin) == []
    needless = set(acl.commands()) - seen - RARE.keys()
    assert needless == set()
    assert seen >= acl.script_commands() - RARE.keys()


def test_rare_commands_are_of_the_rule() -> None:
    assert set(acl.commands()) >= RARE.keys()


@pytest.mark.parametrize("command", ["INFO", "EVALSHA", "ZADD", "SET"])
async def test_a_command_that_is_not_allowed_is_named(
    command: str, restricted: str, shared_server: RunningServer
) -> None:
    with shared_server.client() as admin:
        admin.execute_command("ACL SETUSER", "worker", f"-{command.lower()}")
    in_a_script = shared_server.kind == "redis" and command in ("ZADD", "SET")  # Redis 7.0 does not name it
    named = "a command that AgentQueue's scripts call" if in_a_script else command
    with pytest.raises(QueueUnavailable, match=f"user worker may not run {named}; allow it: `agentqueue acl`"):
        async with Client(restricted) as client:
            await client.enqueue(QUEUE, "job")
    if command == "INFO":
        line = RedisPool().acquire(ServerOptions(restricted))
        problem = await line.check()
        await line.close()
        assert problem is not None
        assert problem.reason is Reason.REDIS_FORBIDDEN


async def test_the_error_names_the_command_that_a_user_may_not_run(
    restricted: str, shared_server: RunningServer
) -> None:
    with shared_server.client() as admin:
        admin.execute_command("ACL SETUSER", "worker", "+@all", "-@dangerous")
    with pytest.raises(QueueUnavailable, match="user worker may not run INFO; "):
        await Client(restricted).__aenter__()


async def test_the_error_says_that_a_queue_is_not_allowed(restricted: str) -> None:
    async with Client(restricted) as client:
        with pytest.raises(QueueUnavailable, match="user worker may not use a key of this queue"):
            await client.enqueue("secret", "job")


@pytest.fixture
async def arq_pool(shared_server: RunningServer, server_url: str) -> AsyncIterator[Any]:
    from arq import create_pool
    from arq.connections import RedisSettings

    url = make_user(shared_server, acl.rule("worker", [QUEUE], arq=True))
    pool = await create_pool(RedisSettings.from_dsn(url), default_queue_name=QUEUE)
    yield pool
    await pool.aclose(close_connection_pool=True)
    with shared_server.client() as admin:
        admin.execute_command("ACL DELUSER", "worker")


async def test_arqs_own_client_has_enough_with_its_option(arq_pool: Any, shared_server: RunningServer) -> None:
    with shared_server.client() as admin:
        admin.execute_command("ACL LOG", "RESET")
        job = await arq_pool.enqueue_job("fine")
        await job.status()
        await arq_pool.queued_jobs()
        await arq_pool.all_job_results()
        assert denials(admin) == []


def test_the_command_of_the_page_prints_a_rule(capsys: pytest.CaptureFixture[str]) -> None:
    (words,) = Page(ROOT / "docs" / "security.md").commands
    assert words[0] == "agentqueue"
    assert run(words[1:]) == 0
    assert capsys.readouterr().out.startswith("ACL SETUSER ")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["acl"]) == 0
    line = capsys.readouterr().out
    assert line.startswith("ACL SETUSER agentqueue reset on >PASSWORD ~* +blpop ")
    assert line.count("\n") == 1
    assert run(["acl", "mail", "--user", "me", "--arq", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"mail", "mail:*", "arq:job:*"} <= set(told["keys"])
    assert {"WATCH", "EVALSHA"} <= set(told["commands"])
    assert run(["acl", "--user", "a b"]) == 2
    assert run(["acl", "no such queue"]) == 2
