"""finish_and_claim with many jobs in a call, with MSETEX and without it."""

import shlex
from collections.abc import AsyncIterator, Iterator

import pytest

from agentqueue.keys import Level
from agentqueue.model.job import JobRecord, encode_job
from agentqueue.model.new_job import NewJob
from agentqueue.model.outcomes import KEEP_FOREVER, Completed, Outcome, Released
from agentqueue.store import Engine, Server, Store, acl
from agentqueue.store.options import ServerOptions
from tests.support.servers import RunningServer

COUNT = 12
DAY_MS = 86_400_000


@pytest.fixture(params=["all", "no-msetex"])
def user_url(request: pytest.FixtureRequest, shared_server: RunningServer, server_url: str) -> Iterator[str]:
    """Return the URL of a user with all rights, and of one who may not run MSETEX, which the server may not have."""
    if request.param == "all":
        yield server_url
        return
    with shared_server.client() as admin:
        admin.execute_command(*shlex.split(acl.rule("limited", ["q"]).replace(">PASSWORD", ">pw")))
        yield f"redis://limited:pw@{shared_server.host}:{shared_server.port}/0"
        admin.execute_command("ACL DELUSER", "limited")


@pytest.fixture
async def engine(user_url: str) -> AsyncIterator[Engine]:
    async with Server(ServerOptions(user_url)) as server:
        record = encode_job(JobRecord("noop", queue="q"))
        levels = [Level.HIGH, *[Level.NORMAL] * (COUNT - 2), Level.LOW]
        jobs = [NewJob("q", f"job-{number}", record, level) for number, level in enumerate(levels)]
        await Store(server).enqueue(jobs)
        yield Engine(server, "q")


async def test_each_lease_of_a_batch_expires_in_a_day_once_it_is_renewed(
    engine: Engine, shared_server: RunningServer
) -> None:
    reply = await engine.finish_and_claim(seq=1, owner="w/1", want=COUNT)
    assert [it.id for it in reply.claimed] == [f"job-{number}" for number in range(COUNT)]
    assert {it.level for it in reply.claimed} == {Level.HIGH, Level.NORMAL, Level.LOW}
    keys = [f"arq:in-progress:{claimed.id}" for claimed in reply.claimed]
    with shared_server.client() as admin:
        for key, claimed in zip(keys, reply.claimed, strict=True):
            level = (Level.URGENT, *Level).index(claimed.level)
            assert admin.get(key).decode().startswith(f"w/1|{level}|")
        assert {admin.pttl(key) for key in keys} == {-1}
        held = [(claimed.id, claimed.level) for claimed in reply.claimed]
        await engine.renew(owner="w/1", worker="w", heartbeat=b"{}", held=held)
        assert all(DAY_MS - 60_000 < admin.pttl(key) <= DAY_MS for key in keys)


async def test_msetex_is_used_where_the_server_has_it_and_the_user_may_run_it(
    engine: Engine, shared_server: RunningServer, user_url: str
) -> None:
    with shared_server.client() as admin:
        is_known = admin.execute_command("COMMAND INFO", "MSETEX")[0] is not None
        admin.config_resetstat()
        claimed = (await engine.finish_and_claim(seq=1, owner="w/1", want=COUNT)).claimed
        outcomes = [Completed(job.id, job.level, b"{}", 60_000, 7) for job in claimed]
        await engine.finish_and_claim(seq=2, owner="w/1", want=0, outcomes=outcomes)
        is_used = "cmdstat_msetex" in admin.info("commandstats")
    assert is_used == (is_known and "limited" not in user_url)


async def test_results_of_a_batch_live_as_long_as_each_was_given(engine: Engine, shared_server: RunningServer) -> None:
    reply = await engine.finish_and_claim(seq=1, owner="w/1", want=COUNT)
    keeps = [0, KEEP_FOREVER, *[60_000] * 6, *[90_000] * 4]
    outcomes = [
        Completed(job.id, job.level, b"result of " + job.id.encode(), keep_ms, 7)
        for job, keep_ms in zip(reply.claimed, keeps, strict=True)
    ]
    done = await engine.finish_and_claim(seq=2, owner="w/1", want=0, outcomes=outcomes)
    assert done.lost == []
    with shared_server.client() as admin:
        for outcome in outcomes:
            key = f"arq:result:{outcome.id}"
            found, left_ms = admin.get(key), admin.pttl(key)
            assert found == (None if outcome.keep_ms == 0 else outcome.result)
            if outcome.keep_ms > 0:
                assert outcome.keep_ms - 30_000 < left_ms <= outcome.keep_ms
            else:
                assert left_ms == (-1 if outcome.keep_ms else -2)
        assert admin.hget("q:stats", "completed") == b"%d" % COUNT
        assert admin.hget("q:stats", "run_ms") == b"%d" % (7 * COUNT)
        assert admin.keys("arq:in-progress:*") == admin.keys("arq:job:*") == []
        assert admin.zcard("q:done") == COUNT


async def test_lost_jobs_of_a_group_are_named_and_not_counted(engine: Engine, shared_server: RunningServer) -> None:
    reply = await engine.finish_and_claim(seq=1, owner="w/1", want=COUNT)
    with shared_server.client() as admin:
        admin.delete("arq:in-progress:job-3")
        admin.set("arq:in-progress:job-5", "w/2|3|5|5")
    outcomes: list[Outcome] = [Completed(job.id, job.level, b"{}", 60_000, 7) for job in reply.claimed]
    outcomes.insert(1, Released("unknown", Level.NORMAL))  # an outcome of another kind, between the others
    done = await engine.finish_and_claim(seq=2, owner="w/1", want=0, outcomes=outcomes)
    assert set(done.lost) == {"job-3", "job-5", "unknown"}
    with shared_server.client() as admin:
        assert admin.hget("q:stats", "completed") == b"%d" % (COUNT - 2)
        assert admin.hget("q:stats", "run_ms") == b"%d" % (7 * (COUNT - 2))
        assert admin.exists("arq:result:job-3", "arq:result:job-5") == 0


async def test_only_jobs_with_a_history_carry_one(engine: Engine, shared_server: RunningServer) -> None:
    with shared_server.client() as admin:
        admin.set("arq:retry:job-2", 3)
        admin.hset("aq:meta:job-4", mapping={"crashes": 2})
        admin.zadd("arq:abort", {"job-6": 1})
    claimed = (await engine.finish_and_claim(seq=1, owner="w/1", want=COUNT)).claimed
    assert {it.id: it.attempts for it in claimed if it.attempts} == {"job-2": 3}
    assert {it.id: dict(it.meta) for it in claimed if it.meta} == {"job-4": {"crashes": b"2"}}
    assert [it.id for it in claimed if it.cancel] == ["job-6"]


async def test_a_denied_command_leaves_no_trace_on_the_server(engine: Engine, shared_server: RunningServer) -> None:
    await engine.finish_and_claim(seq=1, owner="w/1", want=0)  # redis-py's greeting is partly refused
    with shared_server.client() as admin:
        admin.config_resetstat()
        admin.execute_command("ACL LOG", "RESET")
        await engine.finish_and_claim(seq=2, owner="w/1", want=COUNT)
        assert admin.execute_command("ACL LOG") == []
        assert admin.info("errorstats") == {}
