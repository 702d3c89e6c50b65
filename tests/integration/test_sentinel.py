"""Redis behind Sentinels: the primary is found and followed, and who does not find it is told why."""

import contextlib
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from agentqueue import Client
from agentqueue.clock import monotonic
from agentqueue.errors import QueueUnavailable
from agentqueue.model.job import State
from agentqueue.store import Sentinels, Server, ServerOptions, Tls
from tests.support.certificates import Certificates, issue
from tests.support.sentinel import MASTER, Watched, run_sentinel, run_watched
from tests.support.servers import free_port, run_server
from tests.support.waiting import until

pytestmark = pytest.mark.usefixtures("_redis_installed")


@pytest.fixture
def watched(_redis_installed: None) -> Iterator[Watched]:
    with run_watched() as running:
        yield running


def options_for(watched: Watched, **changes: Any) -> ServerOptions:
    given: dict[str, Any] = {
        "connect_timeout": 2.0,
        "timeout": 3.0,
        "sentinel": Sentinels(MASTER, watched.nodes),
    } | changes
    return ServerOptions("redis://", **given)


# --- failovers; tests/integration/test_failover.py has them with workers


async def test_a_client_goes_on_at_the_new_primary(watched: Watched) -> None:
    async with Client.at(options_for(watched)) as client:
        before = await client.enqueue("shop", "sell", "before")
        watched.wait_for_replica()
        watched.primary.kill()

        async def sent() -> bool:
            with contextlib.suppress(QueueUnavailable):
                await client.enqueue("shop", "sell", "after", id="after")
                return True
            return False

        await until(sent, what="the new primary takes a job", deadline=40)
        assert (await before.status()).state is State.WAITING
        assert (await client.stats("shop")).waiting == 2
        with watched.replica.client() as new:
            assert new.exists("arq:job:after")


async def test_a_check_in_the_middle_of_a_failover_asks_again(watched: Watched) -> None:
    """The Sentinel still names a server that is a replica by now: no reason for a worker to give up."""
    server = Server(options_for(watched))
    try:
        await server.check()
        with watched.primary.client() as old:
            old.replicaof("127.0.0.1", watched.replica.port)
        with pytest.raises(QueueUnavailable, match="a failover is in progress"):
            await server.check()
    finally:
        await server.close()


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
            return "considers the primary down; wait for the failover" in str(exc)

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
        run_server("redis", secure, tls_replication="yes"),
        run_sentinel(port, config=certificates.server_config(sentinel_port) | {"tls-replication": "yes"}),
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
