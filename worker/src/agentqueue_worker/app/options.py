"""Options of the claim loop."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agentqueue.model.limits import Limit
from agentqueue.store import EngineSettings


@dataclass(frozen=True, slots=True)
class DeadLetterTarget:
    """Receiver of dead letters. Each dead letter is sent to this queue, as a job of this name."""

    queue: str
    job: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Identity of the process. Its owner token in Redis is `name/[pod uid/]incarnation`."""

    name: str
    """Name of the worker. Names of pods are unique, other names may be given twice."""
    incarnation: str
    """Random ID of the process."""
    pod_uid: str | None = None

    @property
    def container(self) -> str:
        """Identity of the container, which a restart in its pod keeps. Earlier incarnations of it are dead."""
        return f"{self.name}/{self.pod_uid}" if self.pod_uid else self.name

    @property
    def heartbeat_field(self) -> str:
        """Field of the worker's heartbeat and drain mark in Redis.

        In a cluster it is the pod's name, which the operator knows. Elsewhere it has the incarnation too, because two
        workers may have the same name.
        """
        return self.name if self.pod_uid else f"{self.name}/{self.incarnation}"

    @property
    def owner(self) -> str:
        """Token of the worker's leases. Redis refuses the outcome of a job whose lease has another token."""
        return f"{self.container}/{self.incarnation}"


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Options of one worker. Times are in seconds unless the name has another unit."""

    queue: str
    identity: Identity
    declared_queue: str = ""
    """Queue that the agent declares in code. The default is `queue`."""
    agent: str = ""
    concurrency: int = 5
    crash_limit: int = 3
    grace: float = 60.0
    drain_margin: float = 5.0
    poll: float = 0.5
    """Seconds between polls of the queue. Jobs of plain arq clients and cancellation requests are noticed by polls."""
    burst: bool = False
    """End once no job is ready and none runs."""
    burst_delayed: bool = False
    """Wait for delayed jobs too in burst mode, as arq does."""
    start_limit: int | None = None
    """Maximum number of jobs that the worker starts in burst mode before it ends (arq's `max_burst_jobs`)."""
    keep_ms: int = 3_600_000
    """Milliseconds that results of jobs without a handler are kept."""
    limits: Sequence[str] = ()
    """Limits that the agent declares: no job starts while many calls wait for one of them."""
    limit_definitions: Mapping[str, Limit] = field(default_factory=dict)
    """Limits that the worker defines before it starts jobs."""
    dead_letters: DeadLetterTarget | None = None
    engine: EngineSettings = field(default_factory=EngineSettings)
