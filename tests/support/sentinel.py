"""A primary, a replica and Sentinels that watch them: real ones, on loopback."""

import contextlib
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import redis as sync_redis

from tests.support.servers import RunningServer, binary, free_port, run_server

MASTER = "jobs"
DOWN_AFTER_MS = 400
"""How long a server may be silent until its Sentinel takes it for down: short, so that a test is."""


@dataclass
class Watched:
    """What a test has: two servers, and the ports of the Sentinels."""

    primary: RunningServer
    replica: RunningServer
    sentinels: list["RunningSentinel"] = field(default_factory=list)

    @property
    def nodes(self) -> tuple[tuple[str, int], ...]:
        """Addresses of the Sentinels."""
        return tuple(("127.0.0.1", sentinel.port) for sentinel in self.sentinels)

    def wait_for_replica(self) -> None:
        """Until the replica has all that the primary has written so far, and the Sentinels know of it."""
        with self.primary.client() as client:
            client.incr("tests:wait")  # WAIT looks at the writes of its own connection, and so at all before them
            _until(lambda: client.execute_command("WAIT", 1, 100) == 1, "the replica follows")
        for sentinel in self.sentinels:
            with sentinel.client() as client:
                _until(partial(_knows_replica, client), "the Sentinel knows the replica")

    def fail_over(self) -> None:
        """Swap the two while both run, as before maintenance."""
        with self.sentinels[0].client() as client:
            client.execute_command("SENTINEL", "FAILOVER", MASTER)


def _knows_replica(client: sync_redis.Redis) -> bool:
    replicas = client.sentinel_slaves(MASTER)
    return any(not it["is_disconnected"] and it["master-link-status"] == "ok" for it in replicas)


@dataclass
class RunningSentinel:
    """A Sentinel process."""

    port: int
    process: subprocess.Popen[bytes]
    password: str | None = None

    def client(self) -> sync_redis.Redis:
        """A plain client."""
        return sync_redis.Redis(port=self.port, password=self.password, socket_timeout=2)


@contextlib.contextmanager
def run_sentinel(
    primary_port: int, *, master: str = MASTER, quorum: int = 1, config: Mapping[str, str] | None = None
) -> Iterator[RunningSentinel]:
    """A Sentinel that watches the server at that port; `config` is what its file has beside that."""
    port = free_port()
    lines = [
        *(
            f"{name.replace('_', '-')} {value}"
            for name, value in {"port": str(port), "bind": "127.0.0.1", **(config or {})}.items()
        ),
        f"sentinel monitor {master} 127.0.0.1 {primary_port} {quorum}",
        f"sentinel down-after-milliseconds {master} {DOWN_AFTER_MS}",
        f"sentinel failover-timeout {master} 2000",
    ]
    with tempfile.TemporaryDirectory(prefix="aq-sentinel-") as name:
        folder = Path(name)
        (folder / "sentinel.conf").write_text("\n".join([*lines, f"dir {folder}"]))
        with (folder / "sentinel.log").open("wb") as log:
            process = subprocess.Popen(
                [binary("redis"), str(folder / "sentinel.conf"), "--sentinel"],
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        sentinel = RunningSentinel(port, process, (config or {}).get("requirepass"))
        try:
            _until(lambda: _answers(sentinel), "the Sentinel answers")
            yield sentinel
        finally:
            process.kill()
            process.wait(10)


@contextlib.contextmanager
def run_watched(*, sentinels: int = 1, quorum: int = 1, config: Mapping[str, str] | None = None) -> Iterator[Watched]:
    """Two servers with an append-only file, the replica in step, and Sentinels; `config` is the Sentinels' own."""
    durable = {"appendonly": "yes", "repl_diskless_sync_delay": "0"}
    with contextlib.ExitStack() as stack:
        primary = stack.enter_context(run_server("redis", durable))
        replica = stack.enter_context(run_server("redis", durable, replicaof=f"127.0.0.1 {primary.port}"))
        watched = Watched(primary, replica)
        for _ in range(sentinels):
            watched.sentinels.append(stack.enter_context(run_sentinel(primary.port, quorum=quorum, config=config)))
        watched.wait_for_replica()
        yield watched


def _answers(sentinel: RunningSentinel) -> bool:
    with contextlib.suppress(sync_redis.ConnectionError), sentinel.client() as client:
        return bool(client.ping())
    return False


def _until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within 20 s"
        time.sleep(0.01)
