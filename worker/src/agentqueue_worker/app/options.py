"""What the claim loop is told about its worker."""

from dataclasses import dataclass, field

from agentqueue.store import EngineSettings


@dataclass(frozen=True, slots=True)
class DeadLetterTarget:
    """Who gets a job for every dead letter."""

    queue: str
    job: str


@dataclass(frozen=True, slots=True)
class Identity:
    """Who this process is. The owner token in Redis is `name/[pod uid/]incarnation`."""

    name: str
    """What people call the worker. The orchestrator's are unique; others may be given twice."""
    incarnation: str
    """New for each process."""
    pod_uid: str | None = None

    @property
    def container(self) -> str:
        """What stays the same when a container is restarted in its pod: earlier incarnations of it are dead."""
        return f"{self.name}/{self.pod_uid}" if self.pod_uid else self.name

    @property
    def heartbeat_field(self) -> str:
        """The field of its heartbeat and its drain mark.

        A pod's name, by which the operator marks it; elsewhere the incarnation is added, since two workers may have
        been given one name.
        """
        return self.name if self.pod_uid else f"{self.name}/{self.incarnation}"

    @property
    def owner(self) -> str:
        """The token that fences leases."""
        return f"{self.container}/{self.incarnation}"


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Times in seconds, unless the name says otherwise."""

    queue: str
    identity: Identity
    declared_queue: str = ""
    """The queue that the agent names itself; by default `queue`."""
    agent: str = ""
    concurrency: int = 5
    crash_limit: int = 3
    grace: float = 60.0
    drain_margin: float = 5.0
    poll: float = 0.5
    """Between looks at the queue that nothing else asked for: how soon a plain arq client's job, or a request to
    cancel a running one, is seen."""
    burst: bool = False
    """End when no job is ready and none runs."""
    burst_delayed: bool = False
    """In burst mode wait for delayed jobs too, as arq does."""
    start_limit: int | None = None
    """Jobs to start in all; in burst mode the worker ends after them (arq's `max_burst_jobs`)."""
    keep_ms: int = 3_600_000
    """For results of jobs that have no handler."""
    dead_letters: DeadLetterTarget | None = None
    engine: EngineSettings = field(default_factory=EngineSettings)
