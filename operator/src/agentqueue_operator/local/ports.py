"""Interfaces between the local supervisor and worker processes or the screen."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agentqueue_operator.autoscaling.model import ScalingPolicy
from agentqueue_operator.queues.ports import Retention


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRun:
    """An agent as it is to run on this machine."""

    name: str
    queue: str
    policy: ScalingPolicy
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Of its workers, over that of `up` itself."""
    grace_s: float = 60.0
    """From SIGTERM to SIGKILL."""
    retention: Retention = field(default_factory=Retention)


@dataclass(frozen=True, slots=True)
class Exit:
    """A worker process has ended."""

    worker: str
    code: int
    """Its exit status; minus the signal's number if a signal ended it."""
    last_words: Sequence[str] = ()
    """The last lines that it wrote."""


class Processes(Protocol):
    """Worker processes of this machine."""

    async def start(self, run: AgentRun) -> str:
        """Start a worker; returns the name that its heartbeats and leases bear.

        Raises:
            OSError: the system gives no process.
        """
        ...

    def end(self, worker: str) -> None:
        """SIGTERM."""
        ...

    def kill(self, worker: str) -> None:
        """SIGKILL, to all it has started too."""
        ...

    def exits(self) -> list[Exit]:
        """The workers that have ended since the last call."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """An agent in the summary."""

    agent: str
    ready: int
    starting: int
    draining: int
    wanted: int
    waiting: int = 0
    delayed: int = 0
    active: int = 0
    done: int = 0
    """Since this `up` began."""
    dead: int = 0
    rate_per_s: float = 0.0
    note: str = ""
    """The last change of the number of workers, or what is wrong."""


class Screen(Protocol):
    """Where people watch."""

    def say(self, who: str, text: str, *, bad: bool = False) -> None:
        """One line of what happens to an agent, or to `up` itself."""
        ...

    def show(self, rows: Iterable[Row]) -> None:
        """The present state of all agents."""
        ...
