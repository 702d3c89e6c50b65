"""Interfaces between the reconciler, the Kubernetes API server, the cache and the scaler."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agentqueue.spec import LastScale, ResolvedQueue
from agentqueue.spec.defaults import ScalingMode
from agentqueue_operator.autoscaling.model import Decision, ScaleTo
from agentqueue_operator.autoscaling.queue_metrics import QueueMetrics
from agentqueue_operator.queues.ports import Queues
from agentqueue_operator.resources.kinds import Kind, Object, QueueRef


class ApiRefused(Exception):
    """The API server rejected a request.

    Args:
        status: the HTTP status.
        reason: the machine-readable reason, such as NotFound, Conflict, Forbidden or Invalid.
        message: the text for people.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message


class ApiUnavailable(Exception):
    """The API server did not answer in time, or asked the client to retry later (429, 5xx).

    Args:
        message: the text for people.
        retry_after_s: the delay that the server asked for, in seconds; None: it asked for none.
    """

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Gone(Exception):
    """The AgentQueue was deleted during its reconcile. There is nothing left to do, and nothing is wrong."""


class NotLeading(Exception):
    """Another replica leads or may lead, so nothing was written."""


class Cluster(Protocol):
    """Reads and writes single objects. Each call has a deadline, and only the leader writes.

    Every awaited method raises ApiRefused or ApiUnavailable; every write also raises NotLeading.
    """

    def check_leads(self) -> None:
        """Raise NotLeading unless this replica leads now. Call this before writes to Redis, such as drain marks."""
        ...

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """Return the object, or None if it does not exist."""
        ...

    async def apply(self, manifest: Object, *, manager: str = "agentqueue-operator") -> Object:
        """Apply the manifest by server-side apply with force, and return the object as it is now."""
        ...

    async def patch(self, kind: Kind, namespace: str, name: str, changes: Object) -> Object:
        """Patch an object of another owner by JSON merge patch: a volume claim's size, a pod's deletion cost."""
        ...

    async def patch_status(self, ref: QueueRef, status: Object, *, uid: str) -> None:
        """Replace the whole status of an AgentQueue.

        Raises:
            Gone: it does not exist any more, or another one of that name has replaced it.
        """
        ...

    async def delete(self, live: Object, *, orphan: bool = False) -> None:
        """Delete exactly this object in the background; its uid is a precondition. It may be gone already.

        Args:
            live: the object.
            orphan: keep the objects that it owns.
        """
        ...

    async def record_event(self, regarding: Object, *, reason: str, note: str, warning: bool = False) -> None:
        """Record an Event (events.k8s.io/v1) about an object. A repeated event increases its count. Never raises."""
        ...


class Cache(Protocol):
    """The objects that the watches have delivered so far. Local, and complete once the watches are synced."""

    def queue(self, ref: QueueRef) -> Object | None:
        """Return an AgentQueue, or None if there is none."""
        ...

    def children(self, ref: QueueRef) -> Sequence[Object]:
        """Return all objects of watched kinds, pods among them, with the label of this AgentQueue.

        The AgentQueue does not have to own them: `metadata.ownerReferences` names the owner.
        """
        ...

    def watch_problems(self) -> Sequence[str]:
        """Return what cannot be watched at present, and why. Objects of those kinds may be outdated."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPods:
    """An agent's Deployment and pods in the cache."""

    deployment: Object | None
    pods: Sequence[Object] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """Result of scaling an agent in one reconcile."""

    replicas: int | None
    """Number of replicas to render into the Deployment; None: leave the field to others (mode External)."""
    decision: Decision | None = None
    metrics: QueueMetrics | None = None
    """None: the queue could not be read."""
    draining: int = 0
    """Number of pods that are marked to drain or terminate."""
    unschedulable: int = 0
    last_scale: LastScale | None = None
    """Change of the number of replicas in this reconcile; None: the status keeps the previous one."""
    requeue_after_s: float | None = None
    """Delay until the next reconcile, for a scale-in or a delayed job, in seconds; None: the ordinary period."""
    registered_jobs: int | None = None
    """Number of jobs that the present version has registered; None if it has registered nothing."""
    shared_with: str = ""
    """Another autoscaler of the same queue; empty: none."""
    error: str = ""
    """Why pods could not be annotated for the scale-in. They stay until this is resolved."""
    lowered_on: Object | None = None
    """The Deployment on which a lower `replicas` was decided. The write is rejected if it has changed since."""
    lower_deadline: float = float("inf")
    """Latest time of a lower `replicas`, in monotonic seconds. Later, the observation is too old."""

    @property
    def registering(self) -> bool:
        """Return whether a pod has to run until a worker of the present version has registered."""
        if self.decision is None:
            return False
        terms = self.decision.terms
        return terms.snapshot.registering and terms.policy.mode is ScalingMode.AUTO and not terms.policy.suspended

    @property
    def wanted(self) -> int | None:
        """Return the decided number. It is lower than `replicas` while pods that will end finish their jobs."""
        return self.decision.replicas if isinstance(self.decision, ScaleTo) else self.replicas


class Scaler(Protocol):
    """Scales the agents of one AgentQueue. It keeps state; there is one instance for each AgentQueue."""

    async def scale(
        self, queue: ResolvedQueue, agents: Mapping[str, AgentPods], *, queues: Queues | None, at: float
    ) -> Mapping[str, Scaled]:
        """Read the queues, decide, and mark and annotate pods. Never raises for Redis; raises as `Cluster` does.

        Args:
            queue: the AgentQueue.
            agents: the agents' Deployments and pods, by name.
            queues: the queues in Redis; None: Redis is not available yet.
            at: the time, in monotonic seconds.
        """
        ...

    async def release_leases(
        self, queue: ResolvedQueue, agents: Mapping[str, AgentPods], *, queues: Queues
    ) -> Iterable[str]:
        """Release the leases of crashed worker containers within 2 s, once per crash, and return the workers' names."""
        ...
