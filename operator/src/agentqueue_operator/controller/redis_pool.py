"""Connections to Redis servers: one per address, shared by the AgentQueues that use it."""

from dataclasses import dataclass, replace
from typing import Any, Final

from redis import exceptions as redis_errors

from agentqueue.errors import AgentQueueError, UnsupportedServer
from agentqueue.store import Server, ServerOptions
from agentqueue.store.errors import is_forbidden
from agentqueue_operator.controller.status.reasons import Problem, Reason
from agentqueue_operator.queues.ports import Queues
from agentqueue_operator.queues.reader import QueueReader

CONNECT_TIMEOUT_S: Final = 3.0
"""Timeout of a connection attempt, in seconds: shorter than a worker's, since the operator retries in seconds."""
RESPONSE_TIMEOUT_S: Final = 5.0
"""Timeout of a command, in seconds: shorter than a worker's, since other AgentQueues wait for their reconcile."""
MAX_CONNECTIONS: Final = 1_000
"""Connections to one server. Each AgentQueue on it listens for first jobs on a connection of its own."""
FULL_SHARE: Final = 0.995
"""Fraction of `maxmemory` above which a server counts as full, because it would refuse the next large job."""


@dataclass(slots=True)
class _SharedServer:
    """A server and the number of its users."""

    server: Server
    queues: Queues
    users: int = 0


class RedisPool:
    """Hands out servers. Users of the same address share its connections."""

    def __init__(self) -> None:
        self._open: dict[ServerOptions, _SharedServer] = {}

    def acquire(self, options: ServerOptions) -> "PooledServer":
        """Return a server without connecting to it yet. The caller must close it.

        Args:
            options: the address and how to connect.

        Raises:
            UsageError: the url is invalid.
        """
        shared = self._open.get(options)
        if shared is None:
            limited = replace(
                options,
                connect_timeout=CONNECT_TIMEOUT_S,
                timeout=RESPONSE_TIMEOUT_S,
                max_connections=MAX_CONNECTIONS,
            )
            server = Server(limited)
            shared = self._open[options] = _SharedServer(server, QueueReader(server))
        shared.users += 1
        return PooledServer(self, options, shared)

    async def release(self, options: ServerOptions, shared: _SharedServer) -> None:
        """Release one reference to the shared connections; close them when unused."""
        shared.users -= 1
        if shared.users <= 0 and self._open.get(options) is shared:
            del self._open[options]
            await shared.server.close()


class PooledServer:
    """One user's reference to a server (`redis_connection.RedisServer`)."""

    def __init__(self, pool: RedisPool, options: ServerOptions, shared: _SharedServer) -> None:
        self._pool = pool
        self._options = options
        self._shared = shared
        self._closed = False

    @property
    def queues(self) -> Queues:
        """Return the queues on the server."""
        return self._shared.queues

    async def check(self) -> Problem | None:
        """Return the problem of the server, or None. Never raises."""
        server = self._shared.server
        try:
            await server.check()
            memory: dict[str, Any] = await server.call(lambda: server.redis.info("memory"))
        except AgentQueueError as error:
            return explain_redis_error(error)
        return memory_problem(memory)

    async def close(self) -> None:
        """Close the reference. The connections close with the last one."""
        if not self._closed:
            self._closed = True
            await self._pool.release(self._options, self._shared)


def explain_redis_error(error: AgentQueueError) -> Problem:
    """Return the problem that caused an error of a server."""
    cause = error.__cause__
    reason = Reason.REDIS_UNREACHABLE
    if isinstance(error, UnsupportedServer):
        reason = Reason.REDIS_UNSUPPORTED
    elif is_forbidden(cause):
        reason = Reason.REDIS_FORBIDDEN
    elif isinstance(cause, redis_errors.AuthenticationError) or "NOAUTH" in str(cause) or "WRONGPASS" in str(cause):
        reason = Reason.REDIS_WRONG_PASSWORD
    elif isinstance(cause, redis_errors.BusyLoadingError):
        reason = Reason.REDIS_LOADING
    return Problem(reason, str(error))


def memory_problem(memory: dict[str, Any]) -> Problem | None:
    """Return a problem if the server has no memory left for new jobs.

    Args:
        memory: the reply to `INFO memory`.
    """
    limit = int(memory.get("maxmemory") or 0)
    used = int(memory.get("used_memory") or 0) - int(memory.get("mem_not_counted_for_evict") or 0)
    if not limit or used < FULL_SHARE * limit:
        return None
    message = f"maxmemory of {limit // 2**20} MiB is used up; new jobs are refused, running jobs continue"
    return Problem(Reason.REDIS_FULL, message)
