"""The declared set of condition reasons, a remedy for each, and problems, which pair a reason with a message."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final


class Reason(StrEnum):
    """Reason of a condition. `REMEDIES` holds a remedy for each."""

    # Nothing is wrong
    AVAILABLE = "Available"
    STABLE = "Stable"
    QUEUES_READABLE = "QueuesReadable"
    QUEUE_DRIVEN = "QueueDriven"
    NOT_PAUSED = "NotPaused"
    NO_WARNINGS = "NoWarnings"
    READY = "Ready"
    PROGRESS_POSSIBLE = "ProgressPossible"
    # In progress
    REDIS_STARTING = "RedisStarting"
    REDIS_LOADING = "RedisLoading"
    WORKERS_STARTING = "WorkersStarting"
    OBJECTS_PENDING = "ObjectsPending"
    ROLLING_OUT = "RollingOut"
    SCALING = "Scaling"
    # Requested by the user
    PAUSED = "PausedByAnnotation"
    SUSPENDED = "Suspended"
    NO_AUTO_SCALING = "NoAutoScaling"
    # Redis
    REDIS_UNREACHABLE = "RedisUnreachable"
    REDIS_WRONG_PASSWORD = "RedisWrongPassword"  # noqa: S105  # a reason, not a password
    REDIS_FORBIDDEN = "RedisForbidden"
    REDIS_UNSUPPORTED = "RedisUnsupported"
    REDIS_FULL = "RedisFull"
    STORAGE_NOT_EXPANDABLE = "StorageNotExpandable"
    VOLUME_REUSED = "VolumeReused"
    # Pods
    IMAGE_PULL_FAILED = "ImagePullFailed"
    REFERENCE_MISSING = "ReferenceMissing"
    CONTAINER_NOT_STARTED = "ContainerNotStarted"
    HANDLER_NOT_IMPORTED = "HandlerNotImported"
    OUT_OF_MEMORY = "OutOfMemory"
    CRASH_LOOPING = "CrashLooping"
    QUOTA_EXCEEDED = "QuotaExceeded"
    PODS_REFUSED = "PodsRefused"
    VOLUME_NOT_BOUND = "VolumeNotBound"
    UNSCHEDULABLE = "Unschedulable"
    ROLLOUT_STUCK = "RolloutStuck"
    NO_WORKERS = "NoWorkers"
    # The resource
    OVER_MAX_REPLICAS = "OverMaxReplicas"
    QUEUE_SHARED = "QueueShared"
    DRIFT = "Drift"
    # Objects
    INVALID_SPEC = "InvalidSpec"
    FOREIGN_OBJECT = "ForeignObject"
    OBJECT_INVALID = "ObjectInvalid"
    FORBIDDEN = "Forbidden"
    # The operator
    WATCHES_DOWN = "WatchesDown"
    UNKNOWN = "Unknown"
    INSECURE_TLS = "InsecureTLS"


FINAL: Final = frozenset(
    {
        Reason.REDIS_WRONG_PASSWORD,
        Reason.REDIS_UNSUPPORTED,
        Reason.IMAGE_PULL_FAILED,
        Reason.CONTAINER_NOT_STARTED,
        Reason.HANDLER_NOT_IMPORTED,
        Reason.OUT_OF_MEMORY,
        Reason.CRASH_LOOPING,
        Reason.PODS_REFUSED,
        Reason.ROLLOUT_STUCK,
        Reason.INVALID_SPEC,
        Reason.FOREIGN_OBJECT,
        Reason.OBJECT_INVALID,
        Reason.FORBIDDEN,
    }
)
"""Reasons that last until a user changes something. Waiting does not help, so the condition Stalled is True.

Reasons that others may resolve are left out: nodes, quota, or a Secret that another controller creates.
"""

REMEDIES: Final[Mapping[Reason, str]] = {
    Reason.AVAILABLE: "Nothing to do.",
    Reason.STABLE: "Nothing to do.",
    Reason.QUEUES_READABLE: "Nothing to do.",
    Reason.QUEUE_DRIVEN: "Nothing to do.",
    Reason.NOT_PAUSED: "Nothing to do.",
    Reason.NO_WARNINGS: "Nothing to do.",
    Reason.READY: "Nothing to do.",
    Reason.PROGRESS_POSSIBLE: "Nothing to do.",
    Reason.REDIS_STARTING: "Wait; Redis takes some seconds to start.",
    Reason.REDIS_LOADING: "Wait; Redis loads its append-only file, which takes about half a minute per gigabyte.",
    Reason.WORKERS_STARTING: "Wait; the workers start.",
    Reason.OBJECTS_PENDING: "Wait; an object is being deleted or has just changed. The next reconcile applies it.",
    Reason.ROLLING_OUT: "Wait; pods of the new version start, and old workers end after their running jobs.",
    Reason.SCALING: "Wait; new workers start in seconds. Workers that end finish their running jobs first.",
    Reason.PAUSED: "Remove the annotation agentqueue.dev/paused to let the operator continue.",
    Reason.SUSPENDED: "Set spec.suspend to false to let jobs run.",
    Reason.NO_AUTO_SCALING: "Nothing to do; no agent has scaling.mode Auto.",
    Reason.REDIS_UNREACHABLE: (
        "Check that the server runs, the NetworkPolicy and the network; for an external server also the url in its "
        "Secret."
    ),
    Reason.REDIS_WRONG_PASSWORD: "Put the right user and password into the Secret that spec.redis names.",
    Reason.REDIS_FORBIDDEN: "Grant the Redis user the permissions that `agentqueue acl` prints.",
    Reason.REDIS_UNSUPPORTED: "Change the server as the message describes.",
    Reason.REDIS_FULL: (
        "Raise spec.redis.managed.resources.limits.memory, or the external server's maxmemory; or keep results for "
        "a shorter time (retention)."
    ),
    Reason.STORAGE_NOT_EXPANDABLE: (
        "Set allowVolumeExpansion: true on the StorageClass, if its driver supports it; until then Redis keeps its "
        "volume."
    ),
    Reason.VOLUME_REUSED: "Nothing to do if this is intended: jobs of the earlier AgentQueue of this name continue.",
    Reason.IMAGE_PULL_FAILED: "Check the image's name and tag, and imagePullSecrets in podTemplate.",
    Reason.REFERENCE_MISSING: "Create the Secret or ConfigMap, or the key in it, that the message names.",
    Reason.CONTAINER_NOT_STARTED: "Check podTemplate and the image: the node could not start the container.",
    Reason.HANDLER_NOT_IMPORTED: "Fix the code or the agent's handler (module:attribute); the message has the error.",
    Reason.OUT_OF_MEMORY: "Raise resources.limits.memory, or lower concurrency.",
    Reason.CRASH_LOOPING: "Read the last log lines of the container: kubectl logs --previous.",
    Reason.QUOTA_EXCEEDED: "Raise the namespace's ResourceQuota, or request less (resources, maxReplicas).",
    Reason.PODS_REFUSED: "Change what the message names: an admission rule of this namespace rejects the pods.",
    Reason.VOLUME_NOT_BOUND: "Check the StorageClass and the volume claim: kubectl describe pvc.",
    Reason.UNSCHEDULABLE: "Add nodes, or request less: no node has room for a pod, or none matches its constraints.",
    Reason.ROLLOUT_STUCK: "Inspect the newest pods: kubectl describe pod. The old pods continue to serve.",
    Reason.NO_WORKERS: "Let workers run: raise the Deployment's replicas (mode External) or scaling.replicas (Fixed).",
    Reason.OVER_MAX_REPLICAS: "Raise maxReplicas, or lower what the message names; maxReplicas is never exceeded.",
    Reason.QUEUE_SHARED: "Give each its own queueName or database: two autoscalers of one queue conflict.",
    Reason.DRIFT: (
        "Move the field into the AgentQueue (env, podTemplate, …) or remove it from the object: the operator leaves it "
        "as it is."
    ),
    Reason.INVALID_SPEC: "Change the fields that the message names; until then the objects stay as they are.",
    Reason.FOREIGN_OBJECT: "Rename or delete that object, or rename the AgentQueue; the operator never changes it.",
    Reason.OBJECT_INVALID: "Change what the message names, often in podTemplate; the other objects are still applied.",
    Reason.FORBIDDEN: "Grant the operator's ServiceAccount the right that the message names (see the chart's roles).",
    Reason.WATCHES_DOWN: "Grant the operator the right to list and watch again; it then recovers by itself.",
    Reason.UNKNOWN: "Wait; the operator has not checked this yet.",
    Reason.INSECURE_TLS: "Set spec.redis.external.tls.caSecretRef and remove insecureSkipVerify.",
}
"""A remedy for each reason. Every message of a condition ends with it."""


@dataclass(frozen=True, slots=True)
class Problem:
    """A reason why something does not work as it should, with the message of the component that reported it."""

    reason: Reason
    message: str = ""
    more: int = 0
    """Number of other pods with the same reason."""
    lasting: bool = False
    """It has lasted longer than such a problem takes to resolve by itself."""
    blocking: bool = True
    """It keeps the generation from being rolled out. False: a warning."""

    @property
    def is_final(self) -> bool:
        """Return whether it lasts until a user changes something."""
        return self.lasting or self.reason in FINAL

    def about(self, subject: str) -> "Problem":
        """Return the problem with a message that begins with its subject, such as `Redis` or `agent a`."""
        return replace(self, message=f"{subject}: {self.message}" if self.message else subject)
