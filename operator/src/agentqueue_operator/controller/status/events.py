"""What happened between two statuses, as events for `kubectl describe`. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from agentqueue.spec import ConditionType
from agentqueue_operator.resources.kinds import Object

TOLD: Final = (ConditionType.READY, ConditionType.REDIS_READY, ConditionType.CONFIGURATION_WARNING)
"""Conditions whose changes are events; the others follow from these, or are told as events of their own."""
PASSING: Final = frozenset({"RedisStarting", "WorkersStarting", "RollingOut", "ObjectsPending", "NotChecked"})
"""Reasons that every start and every rollout goes through."""
WANTED: Final = frozenset({"Suspended"})
"""Reasons of a condition that is well because somebody has asked for less."""


DRIFT_UNDONE: Final = "DriftUndone"
"""Reason of the event that somebody's change of our object was undone."""


@dataclass(frozen=True, slots=True)
class Happening:
    """One event."""

    reason: str
    note: str
    warning: bool = False


def happenings(old: Object | None, new: Object) -> Iterable[Happening]:
    """What is worth an event; what two conditions say alike is one."""
    return dict.fromkeys((*_scalings(old or {}, new), *_changes(old, new)))


def _changes(old: Object | None, new: Object) -> Iterator[Happening]:
    before, after = _conditions(old or {}), _conditions(new)
    for kind in TOLD:
        if (now := after.get(kind)) and _told(before.get(kind)) != _told(now):
            yield from _happening(kind, before.get(kind), now)


def _happening(kind: ConditionType, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> Iterator[Happening]:
    is_warning = kind is ConditionType.CONFIGURATION_WARNING
    bad, good = ("True", "False") if is_warning else ("False", "True")
    was, why = (before["status"], before["reason"]) if before is not None else (None, None)
    if now["status"] == bad and now["reason"] not in PASSING:
        yield Happening(now["reason"], now["message"], warning=True)
    elif now["status"] == good and now["reason"] in WANTED:
        yield Happening(now["reason"], now["message"])
    elif now["status"] == good and (was != good or why in WANTED) and not is_warning:
        yield Happening(str(kind), now["message"])
    elif now["status"] == good and was == bad:
        yield Happening("WarningGone", f"{why} is no more.")


def _told(condition: Mapping[str, Any] | None) -> tuple[Any, Any] | None:
    return None if condition is None else (condition["status"], condition["reason"])


def _conditions(status: Object) -> Mapping[str, Mapping[str, Any]]:
    return {one["type"]: one for one in status.get("conditions") or ()}


def _scalings(old: Object, new: Object) -> Iterator[Happening]:
    before = {agent["name"]: agent.get("lastScale") for agent in old.get("agents") or ()}
    for agent in new.get("agents") or ():
        last = agent.get("lastScale")
        if last and last != before.get(agent["name"]):
            note = f"agent {agent['name']}: from {last['from']} to {last['to']} pods ({last['reason']})"
            yield Happening("Scaled", note)
