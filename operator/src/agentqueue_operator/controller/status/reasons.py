"""Why an AgentQueue's conditions are what they are: the declared set of reasons, each with what to do about it."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Reason(StrEnum):
    """Reasons of conditions. `REMEDIES` says of each what to do."""

    # All is well
    AVAILABLE = "Available"
    SETTLED = "Settled"
    QUEUES_READ = "QueuesRead"
    FOLLOWS_QUEUES = "FollowsQueues"
    NOT_PAUSED = "NotPaused"
    NO_WARNING = "NoWarning"
    READY = "Ready"
    PROGRESS_POSSIBLE = "ProgressPossible"
    # On the way
    REDIS_STARTING = "RedisStarting"
    REDIS_LOADING = "RedisLoading"
    WORKERS_STARTING = "WorkersStarting"
    OBJECTS_PENDING = "ObjectsPending"
    ROLLING_OUT = "RollingOut"
    SCALING = "Scaling"
    # As somebody wants it
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
    NOT_CHECKED = "NotChecked"
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
"""Reasons that stay until somebody changes something: waiting does not help, and the condition Stalled says so.

Not among them is what others may bring: nodes, quota, a Secret that a controller of its own makes.
"""

REMEDIES: Final[Mapping[Reason, str]] = {
    Reason.AVAILABLE: "Nothing to do.",
    Reason.SETTLED: "Nothing to do.",
    Reason.QUEUES_READ: "Nothing to do.",
    Reason.FOLLOWS_QUEUES: "Nothing to do.",
    Reason.NOT_PAUSED: "Nothing to do.",
    Reason.NO_WARNING: "Nothing to do.",
    Reason.READY: "Nothing to do.",
    Reason.PROGRESS_POSSIBLE: "Nothing to do.",
    Reason.REDIS_STARTING: "Wait; Redis takes some seconds to start.",
    Reason.REDIS_LOADING: "Wait; Redis reads its append-only file, a gigabyte takes about half a minute.",
    Reason.WORKERS_STARTING: "Wait; the workers start.",
    Reason.OBJECTS_PENDING: "Wait; an object is being deleted, or somebody has just changed it: it is applied next.",
    Reason.ROLLING_OUT: "Wait; pods of the new version start, and old workers end what they run before they go.",
    Reason.SCALING: "Wait; new workers start in seconds, those that go end what they run, however long that takes.",
    Reason.PAUSED: "Remove the annotation agentqueue.dev/paused to let the operator go on.",
    Reason.SUSPENDED: "Set spec.suspend to false to let jobs run.",
    Reason.NO_AUTO_SCALING: "Nothing to do; no agent has scaling.mode Auto.",
    Reason.REDIS_UNREACHABLE: (
        "Check that the server runs, the NetworkPolicy and the network; of an external one also the url in its Secret."
    ),
    Reason.REDIS_WRONG_PASSWORD: "Put the right user and password into the Secret that spec.redis names.",
    Reason.REDIS_FORBIDDEN: "Give the Redis user the rights that `agentqueue acl` prints.",
    Reason.REDIS_UNSUPPORTED: "Change the server as the message says.",
    Reason.REDIS_FULL: (
        "Raise spec.redis.managed.resources.limits.memory, or the external server's maxmemory; or keep results for "
        "a shorter time (retention)."
    ),
    Reason.STORAGE_NOT_EXPANDABLE: (
        "Set allowVolumeExpansion: true on the StorageClass, if its driver can; until then Redis keeps its volume."
    ),
    Reason.VOLUME_REUSED: "Nothing to do if that is meant: jobs of the earlier AgentQueue of this name go on.",
    Reason.IMAGE_PULL_FAILED: "Check the image's name and tag, and imagePullSecrets in podTemplate.",
    Reason.REFERENCE_MISSING: "Make the Secret or ConfigMap, or the key in it, that the message names.",
    Reason.CONTAINER_NOT_STARTED: "Check podTemplate and the image: the node could not start the container.",
    Reason.HANDLER_NOT_IMPORTED: "Mend the code or the agent's handler (module:attribute); the message has the error.",
    Reason.OUT_OF_MEMORY: "Raise resources.limits.memory, or lower concurrency.",
    Reason.CRASH_LOOPING: "Look at what it said last: kubectl logs --previous.",
    Reason.QUOTA_EXCEEDED: "Raise the namespace's ResourceQuota, or ask for less (resources, maxReplicas).",
    Reason.PODS_REFUSED: "Change what the message names: an admission rule of this namespace refuses the pods.",
    Reason.VOLUME_NOT_BOUND: "Check the StorageClass and the volume claim: kubectl describe pvc.",
    Reason.UNSCHEDULABLE: "Add nodes, or ask for less: no node has room for a pod, or none fits its rules.",
    Reason.ROLLOUT_STUCK: "Look at the newest pods: kubectl describe pod; the old ones serve on.",
    Reason.NO_WORKERS: "Let workers run: raise the Deployment's replicas (mode External) or scaling.replicas (Fixed).",
    Reason.OVER_MAX_REPLICAS: "Raise maxReplicas, or lower what the message names: more pods than that are never made.",
    Reason.QUEUE_SHARED: "Give each its own queueName or database: two that scale one queue disturb each other.",
    Reason.DRIFT: "Put it into the AgentQueue (env, podTemplate, …) or take it out of the object: it is kept as it is.",
    Reason.INVALID_SPEC: "Change the fields that the message names; until then the objects stay as they are.",
    Reason.FOREIGN_OBJECT: "Rename or delete that object, or rename the AgentQueue; the operator never touches it.",
    Reason.OBJECT_INVALID: "Change what the message names, often in podTemplate; the other objects are kept up.",
    Reason.FORBIDDEN: "Give the operator's ServiceAccount the right that the message names (see the chart's roles).",
    Reason.WATCHES_DOWN: "Give the operator back the right to list and watch; it goes on by itself.",
    Reason.NOT_CHECKED: "Wait; the operator has not been able to look yet.",
    Reason.INSECURE_TLS: "Set spec.redis.external.tls.caSecretRef and drop insecureSkipVerify.",
}
