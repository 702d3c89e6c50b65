"""Derives Kubernetes Events for `kubectl describe` from two successive statuses. Pure."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from agentqueue.spec import ConditionType
from agentqueue_operator.controller.status.reasons import Reason
from agentqueue_operator.resources.kinds import Object

REPORTED: Final = (ConditionType.READY, ConditionType.REDIS_READY, ConditionType.CONFIGURATION_WARNING)
"""Conditions whose changes become events. The other conditions follow from these, or have events of their own."""
TRANSIENT: Final = frozenset(
    {
        Reason.REDIS_STARTING,
        Reason.WORKERS_STARTING,
        Reason.REGISTERING,
        Reason.ROLLING_OUT,
        Reason.OBJECTS_PENDING,
        Reason.UNKNOWN,
    }
)
"""Reasons that every start and every rollout passes through. They are not worth an event."""
REQUESTED: Final = frozenset({Reason.SUSPENDED})
"""Reasons of a condition that is True because the user requested less."""
DRIFT_UNDONE: Final = "DriftUndone"
"""Reason of the event for a change to an operator's object that the operator undid."""


@dataclass(frozen=True, slots=True)
class Event:
    """An event about an AgentQueue."""

    reason: str
    note: str
    warning: bool = False


def events_between(old: Object | None, new: Object) -> Iterable[Event]:
    """Return the events of a change of status. Identical messages on two conditions produce one event."""
    return dict.fromkeys((*_scaling_events(old or {}, new), *_condition_events(old or {}, new)))


def _scaling_events(old: Object, new: Object) -> Iterator[Event]:
    before = {agent["name"]: agent.get("lastScale") for agent in old.get("agents") or ()}
    for agent in new.get("agents") or ():
        last = agent.get("lastScale")
        if last and last != before.get(agent["name"]):
            note = f"agent {agent['name']}: scaled from {last['from']} to {last['to']} pods ({last['reason']})"
            yield Event("Scaled", note)


def _condition_events(old: Object, new: Object) -> Iterator[Event]:
    before, after = ({one["type"]: one for one in status.get("conditions") or ()} for status in (old, new))
    for kind in REPORTED:
        was, now = before.get(kind, {"status": None, "reason": None}), after.get(kind)
        if now is None or (was["status"], was["reason"]) == (now["status"], now["reason"]):
            continue
        is_warning = kind is ConditionType.CONFIGURATION_WARNING
        bad, good = ("True", "False") if is_warning else ("False", "True")
        if now["status"] == bad and now["reason"] not in TRANSIENT:
            yield Event(now["reason"], now["message"], warning=True)
        elif now["status"] == good and now["reason"] in REQUESTED:
            yield Event(now["reason"], now["message"])
        elif now["status"] == good and (was["status"] != good or was["reason"] in REQUESTED) and not is_warning:
            yield Event(str(kind), now["message"])
        elif now["status"] == good and was["status"] == bad:
            yield Event("WarningGone", f"The warning {was['reason']} is resolved.")
