"""Jobs that a job waits for: the handle on each, and the error of one that failed."""

import hashlib
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Final, Generic, TypeVar

import orjson

from agentqueue.agent.durable import ChildCall, GatherCall
from agentqueue.agent.outcomes import Fatal
from agentqueue.errors import AgentQueueError
from agentqueue.model.new_job import NO_PAYLOAD
from agentqueue.model.retry_policy import Seconds, seconds

R_co = TypeVar("R_co", covariant=True)
MAX_GATHERED: Final = 1_000
"""Maximum number of children in one gather."""
MAX_DEPTH: Final = 16
"""Maximum number of jobs that wait for one another in a row."""


class ChildFailed(AgentQueueError, Fatal):
    """A child has failed, and stays so when its parent runs again. A parent that lets it pass becomes a dead letter.

    A replay of the parent runs its failed children again, except those whose failures a gather has collected.
    """

    def __init__(self, message: str, *, id: str, target: tuple[str, str], error: str, state: str) -> None:  # noqa: A002
        super().__init__(message)
        self.id = id
        """The child's ID."""
        self.target = target
        """The child's queue and name."""
        self.error = error
        """Its last error in one line."""
        self.state = state
        """`dead`, `cancelled`, `lost` (the server does not know it any more), or `completed`, if its result can't be
        given to its parent."""


class Child(Generic[R_co]):
    """A job that this job waits for, as `ctx.child` returns it. It is sent when it is awaited or gathered."""

    __slots__ = ("_gather", "call")

    def __init__(self, call: ChildCall, gather: Callable[[GatherCall], Any]) -> None:
        self.call = call
        self._gather = gather

    @property
    def id(self) -> str | None:
        """Return the child's job ID. None before it is sent."""
        return self.call.id

    def result(self, timeout: Seconds | None = None) -> Awaitable[R_co]:
        """Wait for the child, and return its result. In a plain `def` handler the call itself waits and returns it.

        Args:
            timeout: Seconds from the first call. They count while the job is suspended, and in later runs.

        Raises:
            ChildFailed: The child has failed.
            TimeoutError: It has not ended in time. It goes on.
        """
        limit = None if timeout is None else seconds(timeout, "timeout")
        return self._gather(GatherCall([self.call], timeout=limit, of_one=True))  # type: ignore[no-any-return]

    def __await__(self) -> Generator[Any, Any, R_co]:
        """Wait for the child, and return its result; see `result`."""
        return self.result().__await__()


def child_fingerprint(queue: str, name: str, payload: Any) -> str:
    """Return the fingerprint of a child's target and payload, which must be the same in each run."""
    parts = [queue, name] if payload is NO_PAYLOAD else [queue, name, payload]
    return hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]
