"""The declared set of condition reasons, each with its remedy, and problems, which pair a reason with a message."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

FINAL: Final = True
"""The reason lasts until a user changes something. Waiting does not help, so the condition Stalled is True."""
NOT_FINAL: Final = False
"""The reason can pass without the user: by waiting, or because others add nodes, quota or a Secret."""


class Reason(StrEnum):
    """Reason of a condition: its name in the status, its remedy, and whether it is final."""

    remedy: str
    """Every message of a condition ends with it."""
    is_final: bool
    """`FINAL` or `NOT_FINAL`."""

    def __new__(cls, name: str, remedy: str, is_final: bool) -> "Reason":  # noqa: FBT001  # members have no keywords
        """Return a member. One without a remedy or without a decision on `is_final` fails at import."""
        reason = str.__new__(cls, name)
        reason._value_, reason.remedy, reason.is_final = name, remedy, is_final
        return reason

    # Nothing is wrong
    AVAILABLE = ("Available", "Nothing to do.", NOT_FINAL)
    STABLE = ("Stable", "Nothing to do.", NOT_FINAL)
    QUEUES_READABLE = ("QueuesReadable", "Nothing to do.", NOT_FINAL)
    QUEUE_DRIVEN = ("QueueDriven", "Nothing to do.", NOT_FINAL)
    NOT_PAUSED = ("NotPaused", "Nothing to do.", NOT_FINAL)
    NO_WARNINGS = ("NoWarnings", "Nothing to do.", NOT_FINAL)
    READY = ("Ready", "Nothing to do.", NOT_FINAL)
    PROGRESS_POSSIBLE = ("ProgressPossible", "Nothing to do.", NOT_FINAL)
    # In progress
    REDIS_STARTING = ("RedisStarting", "Wait; Redis takes some seconds to start.", NOT_FINAL)
    REDIS_LOADING = (
        "RedisLoading",
        "Wait; Redis loads its append-only file, which takes about half a minute per gigabyte.",
        NOT_FINAL,
    )
    WORKERS_STARTING = ("WorkersStarting", "Wait; the workers start.", NOT_FINAL)
    REGISTERING = (
        "Registering",
        "Wait; one worker of each new version starts, so that its jobs and schedules are known. Then it may end.",
        NOT_FINAL,
    )
    OBJECTS_PENDING = (
        "ObjectsPending",
        "Wait; an object is being deleted or has just changed. The next reconcile applies it.",
        NOT_FINAL,
    )
    ROLLING_OUT = (
        "RollingOut",
        "Wait; pods of the new version start, and old workers end after their running jobs.",
        NOT_FINAL,
    )
    SCALING = (
        "Scaling",
        "Wait; new workers start in seconds. Workers that end finish their running jobs first.",
        NOT_FINAL,
    )
    # Requested by the user
    PAUSED = (
        "PausedByAnnotation",
        "Remove the annotation agentqueue.dev/paused to let the operator continue.",
        NOT_FINAL,
    )
    SUSPENDED = ("Suspended", "Set spec.suspend to false to let jobs run.", NOT_FINAL)
    NO_AUTO_SCALING = ("NoAutoScaling", "Nothing to do; no agent has scaling.mode Auto.", NOT_FINAL)
    # Redis
    REDIS_UNREACHABLE = (
        "RedisUnreachable",
        (
            "Check that the server runs, the NetworkPolicy and the network; for an external server also the url in its "
            "Secret."
        ),
        NOT_FINAL,
    )
    REDIS_WRONG_PASSWORD = (
        "RedisWrongPassword",
        "Put the right user and password into the Secret that spec.redis names.",
        FINAL,
    )
    REDIS_FORBIDDEN = (
        "RedisForbidden",
        "Grant the Redis user the permissions that `agentqueue acl` prints.",
        NOT_FINAL,
    )
    REDIS_UNSUPPORTED = ("RedisUnsupported", "Change the server as the message describes.", FINAL)
    REDIS_FULL = (
        "RedisFull",
        (
            "Raise spec.redis.managed.resources.limits.memory, or the external server's maxmemory; or keep results for "
            "a shorter time (retention)."
        ),
        NOT_FINAL,
    )
    STORAGE_NOT_EXPANDABLE = (
        "StorageNotExpandable",
        (
            "Set allowVolumeExpansion: true on the StorageClass, if its driver supports it; until then Redis keeps its "
            "volume."
        ),
        NOT_FINAL,
    )
    VOLUME_REUSED = (
        "VolumeReused",
        "Nothing to do if this is intended: jobs of the earlier AgentQueue of this name continue.",
        NOT_FINAL,
    )
    # Pods
    IMAGE_PULL_FAILED = (
        "ImagePullFailed",
        "Check the image's name and tag, and imagePullSecrets in podTemplate.",
        FINAL,
    )
    REFERENCE_MISSING = (
        "ReferenceMissing",
        "Create the Secret or ConfigMap, or the key in it, that the message names.",
        NOT_FINAL,
    )
    CONTAINER_NOT_STARTED = (
        "ContainerNotStarted",
        "Check podTemplate and the image: the node could not start the container.",
        FINAL,
    )
    HANDLER_NOT_IMPORTED = (
        "HandlerNotImported",
        "Fix the code or the agent's handler (module:attribute); the message has the error.",
        FINAL,
    )
    OUT_OF_MEMORY = ("OutOfMemory", "Raise resources.limits.memory, or lower concurrency.", FINAL)
    CRASH_LOOPING = ("CrashLooping", "Read the last log lines of the container: kubectl logs --previous.", FINAL)
    QUOTA_EXCEEDED = (
        "QuotaExceeded",
        "Raise the namespace's ResourceQuota, or request less (resources, maxReplicas).",
        NOT_FINAL,
    )
    PODS_REFUSED = (
        "PodsRefused",
        "Change what the message names: an admission rule of this namespace rejects the pods.",
        FINAL,
    )
    VOLUME_NOT_BOUND = (
        "VolumeNotBound",
        "Check the StorageClass and the volume claim: kubectl describe pvc.",
        NOT_FINAL,
    )
    UNSCHEDULABLE = (
        "Unschedulable",
        "Add nodes, or request less: no node has room for a pod, or none matches its constraints.",
        NOT_FINAL,
    )
    ROLLOUT_STUCK = (
        "RolloutStuck",
        "Inspect the newest pods: kubectl describe pod. The old pods continue to serve.",
        FINAL,
    )
    NO_WORKERS = (
        "NoWorkers",
        "Let workers run: raise the Deployment's replicas (mode External) or scaling.replicas (Fixed).",
        NOT_FINAL,
    )
    # The resource
    OVER_MAX_REPLICAS = (
        "OverMaxReplicas",
        "Raise maxReplicas, or lower what the message names; maxReplicas is never exceeded.",
        NOT_FINAL,
    )
    QUEUE_SHARED = (
        "QueueShared",
        "Give each its own queueName or database: two autoscalers of one queue conflict.",
        NOT_FINAL,
    )
    DRIFT = (
        "Drift",
        (
            "Move the field into the AgentQueue (env, podTemplate, …) or remove it from the object: the operator "
            "leaves it as it is."
        ),
        NOT_FINAL,
    )
    # Objects
    INVALID_SPEC = (
        "InvalidSpec",
        "Change the fields that the message names; until then the objects stay as they are.",
        FINAL,
    )
    FOREIGN_OBJECT = (
        "ForeignObject",
        "Rename or delete that object, or rename the AgentQueue; the operator never changes it.",
        FINAL,
    )
    OBJECT_INVALID = (
        "ObjectInvalid",
        "Change what the message names, often in podTemplate; the other objects are still applied.",
        FINAL,
    )
    FORBIDDEN = (
        "Forbidden",
        "Grant the operator's ServiceAccount the right that the message names (see the chart's roles).",
        FINAL,
    )
    # The operator
    WATCHES_DOWN = (
        "WatchesDown",
        "Grant the operator the right to list and watch again; it then recovers by itself.",
        NOT_FINAL,
    )
    UNKNOWN = ("Unknown", "Wait; the operator has not checked this yet.", NOT_FINAL)
    INSECURE_TLS = ("InsecureTLS", "Set spec.redis.external.tls.caSecretRef and remove insecureSkipVerify.", NOT_FINAL)


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
        return self.lasting or self.reason.is_final

    def about(self, subject: str) -> "Problem":
        """Return the problem with a message that begins with its subject, such as `Redis` or `agent a`."""
        return replace(self, message=f"{subject}: {self.message}" if self.message else subject)
