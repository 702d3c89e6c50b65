"""Interfaces between the local supervisor and the worker processes or the screen."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from agentqueue.model.schedule import Schedule
from agentqueue_operator.autoscaling.model import ScalingPolicy
from agentqueue_operator.queues.ports import Retention


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentRun:
    """Settings with which an agent runs on this machine."""

    name: str
    queue: str
    policy: ScalingPolicy
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Environment variables of its workers, added to those of `up` itself."""
    grace_s: float = 60.0
    """Time in seconds from SIGTERM to SIGKILL."""
    retention: Retention = field(default_factory=Retention)
    schedules: tuple[Schedule, ...] = ()
    """Schedules of the file."""


@dataclass(frozen=True, slots=True)
class Exit:
    """The end of a worker process."""

    worker: str
    code: int
    """Exit status; the negative signal number if a signal ended the process."""
    last_lines: Sequence[str] = ()
    """Last lines of its output."""


class Processes(Protocol):
    """Worker processes of this machine."""

    async def start(self, run: AgentRun) -> str:
        """Start a worker. Return the name under which it sends heartbeats and holds leases.

        Raises:
            OSError: the system cannot start a process.
        """
        ...

    def stop(self, worker: str) -> None:
        """Send SIGTERM to a worker."""
        ...

    def kill(self, worker: str) -> None:
        """Send SIGKILL to a worker and to all processes that it has started."""
        ...

    def exits(self) -> list[Exit]:
        """Return the workers that have ended since the last call."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """Row of an agent in the summary."""

    agent: str
    ready: int
    starting: int
    draining: int
    wanted: int
    waiting: int = 0
    delayed: int = 0
    suspended: int = 0
    active: int = 0
    done: int = 0
    """Jobs completed since this `up` started."""
    dead: int = 0
    rate_per_s: float = 0.0
    note: str = ""
    """Last change of the number of workers, or the present problem."""


class Screen(Protocol):
    """Output for people."""

    def print_line(self, source: str, text: str, *, error: bool = False) -> None:
        """Print a line about an agent, a worker or `up` itself."""
        ...

    def show(self, rows: Iterable[Row]) -> None:
        """Show the present state of all agents."""
        ...
