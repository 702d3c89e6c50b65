"""Which worker containers have died, by what the kubelet says of them, and why.

Only a `terminated` state proves a death: a node that is lost, or a pod that is gone, may run on.
"""

import signal
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from agentqueue_operator.controller.status.pod_problems import last_end
from agentqueue_operator.queues.ports import Death
from agentqueue_operator.resources.kinds import Object

WORKER: Final = "worker"
"""The container that runs the handlers; others may stand beside it in a pod."""
_NONE: Final[Mapping[str, Any]] = {}
FINAL_PHASES: Final = frozenset({"Failed", "Succeeded"})
"""The kubelet says so once every container of a pod has ended, and none will start again."""


def death_of(pod: Object) -> Death | None:
    """The last death of the pod's worker container; None: none of which there is a proof.

    One that ended with 0 drained: it has handed back what it held, and that is no crash.
    """
    status = pod.get("status") or {}
    containers: Sequence[Mapping[str, Any]] = status.get("containerStatuses") or ()
    container = next((one for one in containers if one.get("name") == WORKER), _NONE)
    ended = last_end(container)
    if ended is None or not (ended.get("exitCode") or ended.get("signal")):
        return None
    return Death(
        worker=pod["metadata"]["name"],
        pod_uid=pod["metadata"]["uid"],
        container=ended.get("containerID") or f"{pod['metadata']['uid']}/{container.get('restartCount', 0)}",
        ended_ms=_ms(ended.get("finishedAt")),
        why=_why(ended),
        of_pod=status.get("phase") in FINAL_PHASES and "terminated" in (container.get("state") or {}),
    )


def _ms(moment: str | None) -> int:
    return int(datetime.fromisoformat(moment).timestamp() * 1000) if moment else 0


def _why(ended: Mapping[str, Any]) -> str:
    """In words, for the job's history."""
    code = ended.get("exitCode", 0)
    if ended.get("reason") == "OOMKilled":
        return f"OOMKilled, its container went over its memory limit (exit code {code})"
    name = _signal(ended.get("signal") or code - 128)
    reason = ended.get("reason")
    cause = f"killed by {name}" if name else f"its container ended ({reason})" if reason else "its container ended"
    return f"{cause} (exit code {code})"


def _signal(number: int) -> str | None:
    try:
        return signal.Signals(number).name
    except ValueError:
        return None
