"""What the states of pods and Deployments tell: which work, and why the others don't."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from agentqueue_operator.controller.status.reasons import FINAL, Reason
from agentqueue_operator.resources.kinds import Object

LONGEST: Final = 400
"""Characters of what a kubelet or a program said that are shown."""
PATIENCE: Final = timedelta(seconds=10)
"""A pod without a node for less is no trouble yet."""
LASTING: Final = timedelta(minutes=10)
"""What may pass by itself (no node has room, a quota is used up) and has lasted for longer counts as stuck. As long as
a Deployment's own progress deadline; a cluster autoscaler has a node ready in less."""
IMAGE_REASONS: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
)
CONFIG_REASONS: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
HANDLER_SAYS: Final = re.compile(r"agentqueue worker: handler .*", re.DOTALL)
"""The worker's last words when the user's code does not import."""
ORDER: Final = (
    Reason.IMAGE_PULL_FAILED,
    Reason.REFERENCE_MISSING,
    Reason.CONTAINER_NOT_STARTED,
    Reason.HANDLER_NOT_IMPORTED,
    Reason.OUT_OF_MEMORY,
    Reason.CRASH_LOOPING,
    Reason.QUOTA_EXCEEDED,
    Reason.PODS_REFUSED,
    Reason.VOLUME_NOT_BOUND,
    Reason.UNSCHEDULABLE,
    Reason.ROLLOUT_STUCK,
)
"""Of several troubles the first is told: what a user must mend goes before what may pass."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why something does not work: the reason, and the words of who noticed it."""

    reason: Reason
    said: str = ""
    more: int = 0
    """Other pods with the same reason."""
    lasting: bool = False
    """It has lasted for so long that nobody should wait for it to pass."""

    @property
    def is_final(self) -> bool:
        """Whether it stays until somebody changes something."""
        return self.lasting or self.reason in FINAL


def is_ready(pod: Object) -> bool:
    """It serves, and is not on its way out."""
    return "deletionTimestamp" not in pod["metadata"] and condition_of(pod, "Ready").get("status") == "True"


def ready_count(pods: Iterable[Object]) -> int:
    """How many serve."""
    return sum(map(is_ready, pods))


def trouble_of(pods: Iterable[Object], parent: Object | None = None, *, now: datetime) -> Trouble | None:
    """The first trouble in `ORDER` of pods and of the Deployment or StatefulSet that made them; None: there is none."""
    found = [one for pod in pods if not is_ready(pod) and (one := _pod_trouble(pod, now))]
    found += _parent_troubles(parent or {}, now)
    if not found:
        return None
    worst = min(found, key=lambda one: ORDER.index(one.reason))
    same = [one for one in found if one.reason is worst.reason]
    lasting = any(one.lasting for one in same) or any(one.reason is Reason.ROLLOUT_STUCK for one in found)
    return Trouble(worst.reason, worst.said, len(same) - 1, lasting)


def _pod_trouble(pod: Object, now: datetime) -> Trouble | None:
    if "deletionTimestamp" in pod["metadata"]:
        return None
    status = pod.get("status") or {}
    containers = [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]
    found = next(filter(None, map(_container_trouble, containers)), None)
    if found is None:
        return _scheduling_trouble(pod, now)
    return replace(found, lasting=age_of(condition_of(pod, "PodScheduled"), now) >= LASTING)


def _container_trouble(container: Mapping[str, Any]) -> Trouble | None:
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason, said = waiting.get("reason", ""), _short(waiting.get("message", ""))
    if reason in IMAGE_REASONS:
        return Trouble(Reason.IMAGE_PULL_FAILED, f"{container.get('image', '')}: {said or reason}")
    if reason in CONFIG_REASONS:
        missing = "not found" in said or "find key" in said
        return Trouble(Reason.REFERENCE_MISSING if missing else Reason.CONTAINER_NOT_STARTED, said or reason)
    return _end_trouble(container, looping=reason == "CrashLoopBackOff")


def _end_trouble(container: Mapping[str, Any], *, looping: bool) -> Trouble | None:
    """A container that has ended badly more than once, or may not be started again yet."""
    ended = last_end(container)
    if ended is None or not (looping or container.get("restartCount", 0) > 1 or "terminated" in _state(container)):
        return None
    said = _short(str(ended.get("message") or ""))
    if ended.get("reason") == "OOMKilled":
        return Trouble(Reason.OUT_OF_MEMORY, _ended(container, ended))
    if handler := HANDLER_SAYS.search(said):
        return Trouble(Reason.HANDLER_NOT_IMPORTED, handler[0].removeprefix("agentqueue worker: "))
    if ended.get("exitCode", 0) == 0 and not looping:
        return None
    return Trouble(Reason.CRASH_LOOPING, ": ".join(part for part in (_ended(container, ended), said) if part))


def last_end(container: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """How a container ended last: `state` or `lastState` `terminated`."""
    for state in (_state(container), container.get("lastState") or {}):
        if ended := state.get("terminated"):
            found: Mapping[str, Any] = ended
            return found
    return None


def _state(container: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = container.get("state") or {}
    return found


def _ended(container: Mapping[str, Any], ended: Mapping[str, Any]) -> str:
    why = ended.get("reason") if ended.get("reason") == "OOMKilled" else None
    return f"container {container.get('name')} ended with {why or 'exit code ' + str(ended.get('exitCode'))}"


def _scheduling_trouble(pod: Object, now: datetime) -> Trouble | None:
    """Not at once: a volume is bound, and a node made free, in some seconds."""
    scheduled = condition_of(pod, "PodScheduled")
    if scheduled.get("status") != "False" or age_of(scheduled, now) < PATIENCE:
        return None
    said = _short(scheduled.get("message", ""))
    unbound = "PersistentVolumeClaim" in said or "persistentvolumeclaim" in said or "volume node affinity" in said
    reason = Reason.VOLUME_NOT_BOUND if unbound else Reason.UNSCHEDULABLE
    return Trouble(reason, said, lasting=age_of(scheduled, now) >= LASTING)


def _parent_troubles(parent: Object, now: datetime) -> Iterator[Trouble]:
    failure = condition_of(parent, "ReplicaFailure")
    if failure.get("status") == "True":
        said = _short(failure.get("message", ""))
        reason = Reason.QUOTA_EXCEEDED if "exceeded quota" in said else Reason.PODS_REFUSED
        yield Trouble(reason, said, lasting=age_of(failure, now) >= LASTING)
    progressing = condition_of(parent, "Progressing")
    if progressing.get("reason") == "ProgressDeadlineExceeded":
        yield Trouble(Reason.ROLLOUT_STUCK, _short(progressing.get("message", "")))


def ready_for(pods: Iterable[Object], now: datetime) -> timedelta:
    """For how long one of them has served; zero: none does."""
    return max((age_of(condition_of(pod, "Ready"), now) for pod in pods if is_ready(pod)), default=timedelta())


def was_ready(pod: Object) -> bool:
    """It has served since its containers started, and does no more: it hangs, or its node is lost."""
    ready = condition_of(pod, "Ready")
    containers = (pod.get("status") or {}).get("containerStatuses") or ()
    since = ready.get("lastTransitionTime")
    if "deletionTimestamp" in pod["metadata"] or ready.get("status") == "True" or not containers or not since:
        return False
    return all(_has_run(one, datetime.fromisoformat(since)) for one in containers)


def _has_run(container: Mapping[str, Any], at: datetime) -> bool:
    """It runs, did so then, and is past its startup probe."""
    start = (_state(container).get("running") or {}).get("startedAt")
    return bool(container.get("started") and start and datetime.fromisoformat(start) < at)


def condition_of(given: Object, kind: str) -> Mapping[str, Any]:
    """A condition of an object's status; empty if it has none of that type."""
    conditions: Sequence[Mapping[str, Any]] = (given.get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one.get("type") == kind), {})


def age_of(condition: Mapping[str, Any], now: datetime) -> timedelta:
    """Since its last change, by the cluster's clock."""
    since = condition.get("lastTransitionTime")
    return now - datetime.fromisoformat(since) if since else timedelta()


def _short(text: str) -> str:
    """On one line; of a traceback the last lines say most."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"… {line[-LONGEST:]}"
