"""Detection of crashed worker containers and of their cause, from the status that the kubelet reports.

Only a `terminated` state proves a crash. The containers of a lost node, or of a deleted pod, may still run.
"""

import signal
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from agentqueue_operator.controller.status.pod_problems import last_end
from agentqueue_operator.queues.ports import WorkerCrash
from agentqueue_operator.resources.kinds import Object

WORKER: Final = "worker"
"""Name of the container that runs the handlers. A pod may have other containers."""
_NONE: Final[Mapping[str, Any]] = {}
FINAL_PHASES: Final = frozenset({"Failed", "Succeeded"})
"""Phases of a pod whose containers have all ended and will not restart."""


def crash_of(pod: Object) -> WorkerCrash | None:
    """Return the last crash of the pod's worker container.

    Returns None unless the kubelet reports a terminated container. A container that ended with exit code 0 has drained
    and released its leases, so it has not crashed.
    """
    status = pod.get("status") or {}
    containers: Sequence[Mapping[str, Any]] = status.get("containerStatuses") or ()
    container = next((one for one in containers if one.get("name") == WORKER), _NONE)
    ended = last_end(container)
    if ended is None or not (ended.get("exitCode") or ended.get("signal")):
        return None
    finished = ended.get("finishedAt")
    return WorkerCrash(
        worker=pod["metadata"]["name"],
        pod_uid=pod["metadata"]["uid"],
        container=ended.get("containerID") or f"{pod['metadata']['uid']}/{container.get('restartCount', 0)}",
        ended_ms=int(datetime.fromisoformat(finished).timestamp() * 1000) if finished else 0,
        why=_why(ended),
        of_pod=status.get("phase") in FINAL_PHASES and "terminated" in (container.get("state") or {}),
    )


def _why(ended: Mapping[str, Any]) -> str:
    """Return the cause as text, for the history of the jobs."""
    code = ended.get("exitCode", 0)
    if ended.get("reason") == "OOMKilled":
        return f"OOMKilled, its container went over its memory limit (exit code {code})"
    number, reason = ended.get("signal") or code - 128, ended.get("reason")
    name = signal.Signals(number).name if number in set(signal.Signals) else None
    cause = f"killed by {name}" if name else f"its container ended ({reason})" if reason else "its container ended"
    return f"{cause} (exit code {code})"
