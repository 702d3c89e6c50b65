"""What the loops over AgentQueues ask of a Kubernetes cluster, and what they tell each other."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from agentqueue.spec import LastScale, ResolvedQueue
from agentqueue_operator.autoscaling.model import Decision, ScaleTo
from agentqueue_operator.autoscaling.queue_metrics import QueueMetrics
from agentqueue_operator.queues.ports import Queues
from agentqueue_operator.resources.kinds import Kind, Object, QueueRef


class ApiRefused(Exception):
    """The API server said no: HTTP status, machine-readable reason (NotFound, Conflict, Forbidden, Invalid, …)."""

    def __init__(self, status: int, reason: str, message: str) -> None:
        super().__init__(f"{status} {reason}: {message}")
        self.status, self.reason, self.message = status, reason, message


class ApiUnavailable(Exception):
    """The API server gave no answer in time, or asked to come back later (429, 5xx)."""

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class Gone(Exception):
    """The AgentQueue that a pass works on was deleted meanwhile: there is nothing left to do, and nothing is wrong."""


class NotLeading(Exception):
    """Another replica leads, or may: nothing was written."""


class Cluster(Protocol):
    """Reads and writes of single objects. Each call has a deadline, each write is made by the leader only.

    Every method that is awaited raises ApiRefused or ApiUnavailable; every write NotLeading.
    """

    def check_leads(self) -> None:
        """Raise NotLeading unless this replica leads now. For writes that go elsewhere, as drain marks go to Redis."""
        ...

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None:
        """The object, None if there is none."""
        ...

    async def apply(self, manifest: Object, *, manager: str = "agentqueue-operator") -> Object:
        """Server-side apply, forced. Returns the object as it is now."""
        ...

    async def patch(self, kind: Kind, namespace: str, name: str, changes: Object) -> Object:
        """JSON merge patch, for what belongs to others (a volume claim's size, a pod's deletion cost)."""
        ...

    async def patch_status(self, ref: QueueRef, status: Object, *, uid: str) -> None:
        """Replace an AgentQueue's whole status.

        Raises:
            Gone: it is no more, or another by its name has taken its place.
        """
        ...

    async def delete(self, live: Object, *, orphan: bool = False) -> None:
        """Delete just this object (its uid is a precondition), in the background; it may be gone already.

        `orphan`: what it owns stays.
        """
        ...

    async def tell(self, regarding: Object, *, reason: str, note: str, warning: bool = False) -> None:
        """Record an Event (events.k8s.io/v1) about an object; the same one again raises its count. Never raises."""
        ...


class Cache(Protocol):
    """What the watches have shown so far: local, complete once `synced`."""

    def queue(self, ref: QueueRef) -> Object | None:
        """An AgentQueue."""
        ...

    def children(self, ref: QueueRef) -> Sequence[Object]:
        """All objects of watched kinds, pods among them, that bear the label of this AgentQueue.

        Not only those that it owns: `metadata.ownerReferences` tells.
        """
        ...

    def trouble(self) -> Sequence[str]:
        """What the operator can't watch at present, and why: the truth of those kinds may be old."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPods:
    """An agent's Deployment and pods, as the cache shows them."""

    deployment: Object | None
    pods: Sequence[Object] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scaled:
    """What scaling has decided and done for an agent in this pass."""

    replicas: int | None
    """To be rendered into the Deployment now; None: leave it to others (mode External)."""
    decision: Decision | None = None
    metrics: QueueMetrics | None = None
    """None: its queue could not be read."""
    draining: int = 0
    """Pods marked, or ending."""
    unschedulable: int = 0
    last_scale: LastScale | None = None
    """If this pass changes the number; else what the status has stands."""
    requeue_after_s: float | None = None
    """A scale-in is under way: the next pass is due after so long, not after a whole period."""
    shared_with: str = ""
    """Who else scales its queue; empty: nobody."""
    trouble: str = ""
    """Why victims could not be annotated; they stay until they are."""
    lowered_from: Object | None = None
    """If `replicas` is fewer: the Deployment that this was decided on. The write is refused once it has changed."""
    lower_before: float = float("inf")
    """When lowering is due at the latest, monotonic seconds: later, what was seen is too old."""

    @property
    def wanted(self) -> int | None:
        """What was decided: less than `replicas` while victims end what they run."""
        return self.decision.replicas if isinstance(self.decision, ScaleTo) else self.replicas


class Scaler(Protocol):
    """Scaling of one AgentQueue's agents over time. It remembers; one instance per AgentQueue."""

    async def scale(
        self, queue: ResolvedQueue, agents: Mapping[str, AgentPods], *, queues: Queues | None, at: float
    ) -> Mapping[str, Scaled]:
        """One pass: look, decide, mark and annotate. `at`: monotonic seconds. `queues` None: Redis is not there yet.

        Never raises for Redis; raises as `Cluster` for the annotations.
        """
        ...

    async def release_leases(
        self, queue: ResolvedQueue, agents: Mapping[str, AgentPods], *, queues: Queues
    ) -> Iterable[str]:
        """Give back what dead worker containers held (rule 4: within 2 s), once per death. Returns their names."""
        ...
