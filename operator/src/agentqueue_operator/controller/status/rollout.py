"""Judges whether the newest version of a Deployment or StatefulSet is rolled out, by the rules of kstatus."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

from agentqueue_operator.controller.status.pod_problems import condition_of
from agentqueue_operator.resources.kinds import Object
from agentqueue_operator.resources.render.objects import digest

REVISION_LABEL: Final = "pod-template-hash"
"""Label that distinguishes the pods of a Deployment's versions."""
COMPLETE: Final = "NewReplicaSetAvailable"
"""Reason of a Deployment's condition Progressing once its newest version was available. It stays until the next one."""


class Templates:
    """Remembers at which generation each object's pod template last changed.

    A change of the number of pods raises a Deployment's generation too. Without this memory each step of scaling would
    look like a rollout until the Deployment's controller has seen it.
    """

    def __init__(self) -> None:
        self._changed: dict[str, tuple[str, int]] = {}
        """uid -> the template's digest, and the generation at which it was first seen."""

    def is_observed(self, live: Object) -> bool:
        """Return whether the object's controller has seen its present template. Must be called in each reconcile."""
        uid, generation = live["metadata"].get("uid", ""), live["metadata"].get("generation", 0)
        template = digest(live["spec"].get("template"))
        known = self._changed.get(uid)
        if known is None or known[0] != template:
            known = self._changed[uid] = (template, generation)
        observed: int = (live.get("status") or {}).get("observedGeneration", 0)
        return observed >= known[1]

    def forget_all_but(self, uids: Iterable[str]) -> None:
        """Forget the objects that no longer exist."""
        kept = set(uids)
        self._changed = {uid: known for uid, known in self._changed.items() if uid in kept}


def is_rolling_out(live: Object, *, is_observed: bool) -> bool:
    """Return whether pods of an older template exist, or the controller has not observed the newest one."""
    status = live.get("status") or {}
    return not is_observed or bool(status.get("replicas", 0) > status.get("updatedReplicas", 0))


def was_complete(deployment: Object) -> bool:
    """Return whether the newest version was available once; pods that fail later do not change that."""
    return condition_of(deployment, "Progressing").get("reason") == COMPLETE


def newest_pods(pods: Sequence[Object], deployment: Object | None) -> Sequence[Object]:
    """Return the pods of the newest version: of several, the one whose first pod is the youngest.

    Pods of an older version may fail for a reason that the newest one fixes. Two versions that were started in the
    same second can't be distinguished, and both count.
    """
    if deployment is not None and not (deployment.get("status") or {}).get("updatedReplicas", 0):
        return ()
    versions: dict[str, list[Object]] = {}
    for pod in pods:
        versions.setdefault((pod["metadata"].get("labels") or {}).get(REVISION_LABEL, ""), []).append(pod)
    starts = {
        version: min(
            datetime.fromisoformat(pod["metadata"].get("creationTimestamp", "1970-01-01T00:00:00Z")) for pod in members
        )
        for version, members in versions.items()
    }
    newest = max(starts.values(), default=None)
    return [pod for version, members in versions.items() if starts[version] == newest for pod in members]
