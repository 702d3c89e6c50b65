"""Redis servers as the operator reaches them: one per address, shared by the AgentQueues on it."""

from dataclasses import dataclass, replace
from typing import Any, Final

from redis import exceptions as redis_errors

from agentqueue.errors import AgentQueueError, UnsupportedServer
from agentqueue.store import Server, ServerOptions
from agentqueue.store.errors import is_forbidden
from agentqueue_operator.controller.status.pod_problems import Trouble
from agentqueue_operator.controller.status.reasons import Reason
from agentqueue_operator.queues.ports import Queues
from agentqueue_operator.queues.reader import QueueReader

CONNECT_S: Final = 3.0
ANSWER_S: Final = 5.0
"""An operator waits less long than a worker: it has other AgentQueues to look after, and comes again."""
CONNECTIONS: Final = 1_000
"""On a server that all AgentQueues share each one listens for its first jobs, on a connection of its own."""
FULL: Final = 0.995
"""Share of `maxmemory` from which a server counts as full: it refuses the next large job."""


@dataclass(slots=True)
class _Shared:
    """A server and how many use it."""

    server: Server
    queues: Queues
    users: int = 0


class Switchboard:
    """Dials servers; who dials an address that is in use shares its connections."""

    def __init__(self) -> None:
        self._open: dict[ServerOptions, _Shared] = {}

    def dial(self, options: ServerOptions) -> "Line":
        """A line to a server; nothing is sent yet.

        Raises:
            UsageError: the url is none.
        """
        shared = self._open.get(options)
        if shared is None:
            server = Server(replace(options, connect_timeout=CONNECT_S, timeout=ANSWER_S, max_connections=CONNECTIONS))
            shared = self._open[options] = _Shared(server, QueueReader(server))
        shared.users += 1
        return Line(self, options, shared)

    async def release(self, options: ServerOptions, shared: _Shared) -> None:
        """One uses it no more."""
        shared.users -= 1
        if shared.users <= 0 and self._open.get(options) is shared:
            del self._open[options]
            await shared.server.close()


class Line:
    """`app.cluster.link.Dialled`."""

    def __init__(self, board: Switchboard, options: ServerOptions, shared: _Shared) -> None:
        self._board = board
        self._options = options
        self._shared = shared
        self._closed = False

    @property
    def queues(self) -> Queues:
        """The queues on it."""
        return self._shared.queues

    async def check(self) -> Trouble | None:
        """What is wrong with it."""
        server = self._shared.server
        try:
            await server.check()
            memory: dict[str, Any] = await server.call(lambda: server.redis.info("memory"))
        except AgentQueueError as error:
            return trouble_with(error)
        return full(memory)

    async def close(self) -> None:
        """Hang up."""
        if not self._closed:
            self._closed = True
            await self._board.release(self._options, self._shared)


def trouble_with(error: AgentQueueError) -> Trouble:
    """What an error tells of the server."""
    return Trouble(_reason(error, error.__cause__), str(error))


def _reason(error: AgentQueueError, cause: BaseException | None) -> Reason:
    if isinstance(error, UnsupportedServer):
        return Reason.REDIS_UNSUPPORTED
    if is_forbidden(cause):
        return Reason.REDIS_FORBIDDEN
    if isinstance(cause, redis_errors.AuthenticationError) or "NOAUTH" in str(cause) or "WRONGPASS" in str(cause):
        return Reason.REDIS_WRONG_PASSWORD
    if isinstance(cause, redis_errors.BusyLoadingError):
        return Reason.REDIS_LOADING
    return Reason.REDIS_UNREACHABLE


def full(memory: dict[str, Any]) -> Trouble | None:
    """Whether the server takes no new jobs for want of memory, by its INFO memory."""
    most = int(memory.get("maxmemory") or 0)
    used = int(memory.get("used_memory") or 0) - int(memory.get("mem_not_counted_for_evict") or 0)
    if not most or used < FULL * most:
        return None
    return Trouble(
        Reason.REDIS_FULL, f"maxmemory of {most // 2**20} MiB is used up; new jobs are refused, running ones end"
    )
