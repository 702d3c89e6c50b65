"""Finds out from the states of pods and Deployments which pods work, and why the others do not."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Final

from agentqueue_operator.controller.status.reasons import Problem, Reason
from agentqueue_operator.resources.kinds import Object

MAX_OUTPUT: Final = 400
"""Maximum number of characters shown of a message by the kubelet or a program."""
SCHEDULING_GRACE: Final = timedelta(seconds=10)
"""Time that a pod may have no node before it counts as a problem: volumes are bound and nodes freed in seconds."""
LASTING_AFTER: Final = timedelta(minutes=10)
"""Age from which a transient problem (no node has room, a quota is used up) counts as lasting. It equals the default
progress deadline of a Deployment; a cluster autoscaler adds a node in less."""
IMAGE_REASONS: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"}
)
"""The kubelet's reasons for a container whose image cannot be pulled."""
CONFIG_REASONS: Final = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
"""The kubelet's reasons for a container that cannot be created."""
HANDLER_ERROR: Final = re.compile(r"agentqueue worker: handler .*", re.DOTALL)
"""The last output of a worker whose handler cannot be imported."""
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
"""Reasons by importance: problems that users must fix come before problems that may resolve by themselves."""


def is_ready(pod: Object) -> bool:
    """Return whether the pod is ready and not terminating."""
    return "deletionTimestamp" not in pod["metadata"] and condition_of(pod, "Ready").get("status") == "True"


def ready_count(pods: Iterable[Object]) -> int:
    """Return the number of ready pods."""
    return sum(map(is_ready, pods))


def problem_of(pods: Iterable[Object], parent: Object | None = None, *, now: datetime) -> Problem | None:
    """Return the most important problem of the pods and their parent, or None.

    Args:
        pods: the pods to inspect.
        parent: the Deployment or StatefulSet that created them.
        now: the time by the cluster's clock.
    """
    problems = [problem for pod in pods if not is_ready(pod) and (problem := _pod_problem(pod, now))]
    failure, progressing = (condition_of(parent or {}, kind) for kind in ("ReplicaFailure", "Progressing"))
    if failure.get("status") == "True":
        message = _shortened(failure.get("message", ""))
        reason = Reason.QUOTA_EXCEEDED if "exceeded quota" in message else Reason.PODS_REFUSED
        problems.append(Problem(reason, message, lasting=age_of(failure, now) >= LASTING_AFTER))
    is_stuck = progressing.get("reason") == "ProgressDeadlineExceeded"
    if is_stuck:
        problems.append(Problem(Reason.ROLLOUT_STUCK, _shortened(progressing.get("message", ""))))
    if not problems:
        return None
    worst = min(problems, key=lambda problem: ORDER.index(problem.reason))
    same = [problem for problem in problems if problem.reason is worst.reason]
    return replace(worst, more=len(same) - 1, lasting=is_stuck or any(problem.lasting for problem in same))


def _pod_problem(pod: Object, now: datetime) -> Problem | None:
    if "deletionTimestamp" in pod["metadata"]:
        return None
    status, scheduled = pod.get("status") or {}, condition_of(pod, "PodScheduled")
    lasting = age_of(scheduled, now) >= LASTING_AFTER
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        if problem := _container_problem(container):
            return replace(problem, lasting=lasting)
    if scheduled.get("status") != "False" or age_of(scheduled, now) < SCHEDULING_GRACE:
        return None
    message = _shortened(scheduled.get("message", ""))
    is_volume = re.search("PersistentVolumeClaim|persistentvolumeclaim|volume node affinity", message)
    return Problem(Reason.VOLUME_NOT_BOUND if is_volume else Reason.UNSCHEDULABLE, message, lasting=lasting)


def _container_problem(container: Mapping[str, Any]) -> Problem | None:
    waiting = (container.get("state") or {}).get("waiting") or {}
    reason, message = waiting.get("reason", ""), _shortened(waiting.get("message", ""))
    if reason in IMAGE_REASONS:
        return Problem(Reason.IMAGE_PULL_FAILED, f"{container.get('image', '')}: {message or reason}")
    if reason in CONFIG_REASONS:
        is_missing = "not found" in message or "find key" in message
        return Problem(Reason.REFERENCE_MISSING if is_missing else Reason.CONTAINER_NOT_STARTED, message or reason)
    return _exit_problem(container, is_looping=reason == "CrashLoopBackOff")


def _exit_problem(container: Mapping[str, Any], *, is_looping: bool) -> Problem | None:
    """Return the problem of a container that exited with an error repeatedly or is not running again yet."""
    ended = last_end(container)
    is_running_again = not is_looping and "terminated" not in (container.get("state") or {})
    if ended is None or (is_running_again and container.get("restartCount", 0) <= 1):
        return None
    name, output = container.get("name"), _shortened(str(ended.get("message") or ""))
    if ended.get("reason") == "OOMKilled":
        return Problem(Reason.OUT_OF_MEMORY, f"container {name} ended with OOMKilled")
    if handler := HANDLER_ERROR.search(output):
        return Problem(Reason.HANDLER_NOT_IMPORTED, handler[0].removeprefix("agentqueue worker: "))
    if ended.get("exitCode", 0) == 0 and not is_looping:
        return None
    text = f"container {name} ended with exit code {ended.get('exitCode')}"
    return Problem(Reason.CRASH_LOOPING, f"{text}: {output}" if output else text)


def last_end(container: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return how a container ended last (`terminated` of `state` or `lastState`), or None if it never did."""
    for name in ("state", "lastState"):
        ended: Mapping[str, Any] | None = (container.get(name) or {}).get("terminated")
        if ended:
            return ended
    return None


def ready_for(pods: Iterable[Object], now: datetime) -> timedelta:
    """Return how long the longest-serving pod has been ready; zero if none is."""
    return max((age_of(condition_of(pod, "Ready"), now) for pod in pods if is_ready(pod)), default=timedelta())


def was_ready(pod: Object) -> bool:
    """Return whether the pod was ready after its start but is not now: it is stuck, or its node is lost."""
    ready = condition_of(pod, "Ready")
    containers: Sequence[Mapping[str, Any]] = (pod.get("status") or {}).get("containerStatuses") or ()
    since = ready.get("lastTransitionTime")
    if "deletionTimestamp" in pod["metadata"] or ready.get("status") == "True" or not containers or not since:
        return False
    starts = [((one.get("state") or {}).get("running") or {}).get("startedAt") for one in containers]
    ran_before = all(start and datetime.fromisoformat(start) < datetime.fromisoformat(since) for start in starts)
    return ran_before and all(one.get("started") for one in containers)  # `started`: past its startup probe


def condition_of(live: Object, kind: str) -> Mapping[str, Any]:
    """Return a condition of an object's status, or an empty mapping if it has none of that type."""
    conditions: Sequence[Mapping[str, Any]] = (live.get("status") or {}).get("conditions") or ()
    return next((one for one in conditions if one.get("type") == kind), {})


def age_of(condition: Mapping[str, Any], now: datetime) -> timedelta:
    """Return the time since the condition's last transition; zero if it has none. `now` is the cluster's time."""
    since = condition.get("lastTransitionTime")
    return now - datetime.fromisoformat(since) if since else timedelta()


def _shortened(text: str) -> str:
    """Return the text on one line, cut at its front: the last lines of a traceback matter most."""
    line = " ".join(text.split())
    return line if len(line) <= MAX_OUTPUT else f"… {line[-MAX_OUTPUT:]}"
