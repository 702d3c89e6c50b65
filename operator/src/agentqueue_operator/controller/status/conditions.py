"""What is told about an AgentQueue: facts in, the status out. Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from agentqueue.spec import ConditionStatus, ConditionType
from agentqueue_operator.autoscaling.wording import counted
from agentqueue_operator.controller.status.pod_problems import Trouble
from agentqueue_operator.controller.status.reasons import REMEDIES, Reason
from agentqueue_operator.resources.kinds import Object

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
REWRITE_S: Final = 30.0
"""Numbers that change all the time are written at most this often, unless one has changed by more than a tenth."""
NO_ROOM: Final = frozenset({Reason.UNSCHEDULABLE, Reason.QUOTA_EXCEEDED})
"""More pods are wanted and can't be had."""
NOTABLE: Final = 0.1
LONGEST: Final = 4_000
"""Characters of a condition's message."""
VOLATILE: Final = frozenset({"waiting", "active", "deadLetters", "busySlots", "oldestWaitingSeconds"})
"""Numbers that change all the time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFacts:
    """An agent, as a pass has seen it."""

    name: str
    queue: str
    deployment: str
    """Name of its Deployment."""
    made: bool = False
    """The Deployment is there."""
    desired: int = 0
    """As was decided; more may run, until they have ended what they run."""
    ready: int = 0
    needed: int = 0
    """Pods without which the agent does not do what its resource promises: minReplicas, or those of mode Fixed."""
    draining: int = 0
    rolling_out: bool = False
    """Pods of an older version are there still, or the newest one has not been looked at."""
    trouble: Trouble | None = None
    """Of any of its pods."""
    new_trouble: Trouble | None = None
    """Of those of the newest version."""
    auto: bool = True
    """We set the number of pods by the queue."""
    read: bool = False
    """Its queue could be read; the numbers below are true."""
    waiting: int = 0
    busy: int = 0
    stalled: int = 0
    """Started jobs that no live worker holds: they are on their way back to the queue."""
    oldest_s: int = 0
    dead: int = 0
    """Dead letters."""
    last_scale: Mapping[str, Any] | None = None
    """As the status has it."""

    @property
    def serves(self) -> bool:
        """It does what its resource promises."""
        return self.made and self.ready >= min(self.needed, self.desired)

    @property
    def failure(self) -> Trouble | None:
        """Why no worker of the newest version runs though some should, or some that must run can't.

        While an older version is replaced its troubles don't count: the newest one may mend them.
        """
        if self.desired == 0:
            return None
        if self.rolling_out:
            return self.new_trouble
        return self.trouble if self.ready == 0 or not self.serves else None

    @property
    def is_ready(self) -> bool:
        """Its newest version is rolled out, does what its resource promises, and its queue can be reached."""
        return self.read and self.serves and not self.rolling_out and self.failure is None

    @property
    def is_stranded(self) -> bool:
        """Jobs wait, and nobody who could start a worker wants to."""
        return self.read and self.waiting + self.stalled > 0 and not self.auto and self.desired == 0 and self.ready == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisFacts:
    """The queue's Redis, as a pass has seen it."""

    endpoint: str | None = None
    """host:port, without credentials."""
    secret: str | None = None
    """Name of the Secret with its url."""
    answers: bool = False
    starting: Trouble | None = None
    """It does not answer yet, and nothing is known to be wrong."""
    trouble: Trouble | None = None
    rolling_out: bool = False
    """The managed Redis's pod is of an older version still."""
    note: Trouble | None = None
    """It answers, and something about it should be known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleFacts:
    """The console, as a pass has seen it."""

    rolling_out: bool = False
    """Its newest version was never available."""
    trouble: Trouble | None = None
    new_trouble: Trouble | None = None
    """Of pods of the newest version."""
    access: Mapping[str, Any] | None = None
    """How it is reached, as the status has it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that the status is made of."""

    generation: int
    redis: RedisFacts = field(default_factory=RedisFacts)
    agents: tuple[AgentFacts, ...] = ()
    console: ConsoleFacts | None = None
    """None: there is to be none."""
    pending: bool = False
    """Some objects could not be applied yet, and will be."""
    suspended: bool = False
    hurdles: tuple[Trouble, ...] = ()
    """What keeps objects from being as they should be."""
    warnings: tuple[Trouble, ...] = ()
    """What works, but not as somebody may think."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """A condition without its times."""

    status: ConditionStatus
    reason: Reason
    message: str


def conditions_of(facts: Facts) -> dict[ConditionType, Verdict]:
    """Each condition but Paused by annotation, where nothing else is looked at (`paused`)."""
    ready = _ready(facts)
    stalled = _stalled(facts) if ready.status is FALSE else None
    return {
        ConditionType.READY: ready,
        ConditionType.RECONCILING: reconciling(ready, stalled),
        ConditionType.STALLED: stalled or NOT_STALLED,
        ConditionType.PROGRESSING: _progressing(facts),
        ConditionType.REDIS_READY: _redis_ready(facts.redis),
        ConditionType.METRICS_AVAILABLE: _metrics(facts),
        ConditionType.SCALING_ACTIVE: _scaling(facts),
        ConditionType.PAUSED: _suspended(facts),
        ConditionType.CONFIGURATION_WARNING: warning_of((*facts.hurdles, *facts.warnings, *_notes(facts))),
    }


def _ready(facts: Facts) -> Verdict:
    for obstacle in _obstacles(facts):
        return obstacle
    if facts.suspended:
        return Verdict(TRUE, Reason.SUSPENDED, _say("As asked, no job starts: spec.suspend is true.", Reason.SUSPENDED))
    return Verdict(TRUE, Reason.AVAILABLE, "Redis answers, and every agent has the workers that it needs.")


def _obstacles(facts: Facts) -> Iterator[Verdict]:
    """What keeps this generation from being rolled out, what matters most first."""
    yield from _failures(facts)
    if facts.redis.starting:
        yield _trouble(facts.redis.starting, "Redis")
    if facts.pending:
        yield Verdict(FALSE, Reason.OBJECTS_PENDING, _say("Some objects are not applied yet.", Reason.OBJECTS_PENDING))
    if replaced := list(_replaced(facts)):
        yield _about(replaced, Reason.ROLLING_OUT, "pods are replaced")
    if starting := [agent.name for agent in facts.agents if not agent.serves]:
        yield _about(starting, Reason.WORKERS_STARTING, "workers that it needs are not ready yet")


def _failures(facts: Facts) -> Iterator[Verdict]:
    """Troubles that keep this generation from being rolled out."""
    yield from (_trouble(hurdle) for hurdle in facts.hurdles)
    if facts.redis.trouble:
        yield _trouble(facts.redis.trouble, "Redis")
    yield from (_agent_trouble(agent, agent.failure) for agent in facts.agents if agent.failure)
    if facts.console and facts.console.rolling_out and facts.console.new_trouble:
        yield _trouble(facts.console.new_trouble, "console")


def _replaced(facts: Facts) -> Iterator[str]:
    if facts.redis.rolling_out:
        yield "Redis"
    yield from (agent.name for agent in facts.agents if agent.rolling_out)
    if facts.console and facts.console.rolling_out:
        yield "console"


def _stalled(facts: Facts) -> Verdict | None:
    """kstatus's Stalled: something stays wrong until somebody changes something. None: waiting may help."""
    wrong = [hurdle for hurdle in facts.hurdles if hurdle.is_final]
    if wrong:
        return _stall(_trouble(wrong[0]))
    redis = facts.redis
    if redis.trouble and redis.trouble.is_final and not redis.rolling_out:
        return _stall(_trouble(redis.trouble, "Redis"))
    for agent in facts.agents:
        if agent.failure and agent.failure.is_final:
            return _stall(_agent_trouble(agent, agent.failure))
    console = facts.console
    if console and console.rolling_out and console.new_trouble and console.new_trouble.is_final:
        return _stall(_trouble(console.new_trouble, "console"))
    return None


def _stall(trouble: Verdict) -> Verdict:
    return Verdict(TRUE, trouble.reason, trouble.message)


NOT_STALLED: Final = Verdict(FALSE, Reason.PROGRESS_POSSIBLE, "Nothing stays wrong until somebody changes something.")


def reconciling(ready: Verdict, stalled: Verdict | None) -> Verdict:
    """kstatus's Reconciling: not ready, and on the way. Never at once with Stalled, which it would hide."""
    if ready.status is TRUE:
        return Verdict(FALSE, Reason.READY, "This generation is rolled out.")
    if stalled:
        return Verdict(FALSE, stalled.reason, "See the condition Stalled.")
    return Verdict(TRUE, ready.reason, ready.message)


def _progressing(facts: Facts) -> Verdict:
    for hindrance in _hindrances(facts):
        return hindrance
    for reason, what, agents in _changes(facts):
        if agents:
            return _about(agents, reason, what, status=TRUE)
    if moves := "; ".join(_moves(facts.agents)):
        return Verdict(TRUE, Reason.SCALING, _say(moves, Reason.SCALING))
    return Verdict(FALSE, Reason.SETTLED, "All is as it should be.")


def _hindrances(facts: Facts) -> Iterator[Verdict]:
    yield from (_trouble(hurdle) for hurdle in facts.hurdles)
    if facts.redis.trouble:
        yield _trouble(facts.redis.trouble, "Redis")
    yield from (_agent_trouble(agent, agent.trouble) for agent in facts.agents if agent.trouble)
    if facts.redis.starting:
        yield Verdict(TRUE, facts.redis.starting.reason, _trouble(facts.redis.starting, "Redis").message)


def _changes(facts: Facts) -> Iterator[tuple[Reason, str, list[str]]]:
    agents = facts.agents
    yield Reason.ROLLING_OUT, "pods are replaced", list(_replaced(facts))
    yield Reason.WORKERS_STARTING, "workers start", [agent.name for agent in agents if not agent.serves]


def _moves(agents: Sequence[AgentFacts]) -> Iterator[str]:
    """Which workers come, and which go: those that have jobs may take hours."""
    if coming := [agent.name for agent in agents if agent.ready < agent.desired]:
        yield f"{', '.join(coming)}: more workers start"
    for agent in agents:
        if (going := agent.ready - agent.desired) > 0:
            ends = "ends what it runs" if going == 1 else "end what they run"
            yield f"{agent.name}: {going} of {counted(agent.ready, 'worker')} {ends}"


def _redis_ready(redis: RedisFacts) -> Verdict:
    if wrong := redis.trouble or redis.starting:
        return _trouble(wrong, "Redis")
    if redis.note:
        return Verdict(TRUE, redis.note.reason, _trouble(redis.note, "Redis").message)
    return Verdict(TRUE, Reason.AVAILABLE, f"Redis at {redis.endpoint} answers.")


def _metrics(facts: Facts) -> Verdict:
    unread = [agent.name for agent in facts.agents if not agent.read]
    if not unread:
        return Verdict(TRUE, Reason.QUEUES_READ, "Every queue can be read.")
    if wrong := facts.redis.trouble or facts.redis.starting:
        return _trouble(wrong, "The queues can't be read: Redis")
    return _about(unread, Reason.NOT_CHECKED, "its queue could not be read")


def _scaling(facts: Facts) -> Verdict:
    if facts.suspended:
        return Verdict(FALSE, Reason.SUSPENDED, _say("spec.suspend is true: workers go to zero.", Reason.SUSPENDED))
    if not any(agent.auto for agent in facts.agents):
        return Verdict(FALSE, Reason.NO_AUTO_SCALING, "No agent has scaling.mode Auto.")
    metrics = _metrics(facts)
    if metrics.status is not TRUE:
        return metrics
    for agent in facts.agents:
        if agent.trouble and agent.trouble.reason in NO_ROOM:
            return _agent_trouble(agent, agent.trouble)
    others = ", ".join(agent.name for agent in facts.agents if not agent.auto)
    but = f"; not so {others}: their scaling.mode is another than Auto" if others else ""
    return Verdict(TRUE, Reason.FOLLOWS_QUEUES, f"The number of workers follows the queues{but}.")


def _suspended(facts: Facts) -> Verdict:
    if facts.suspended:
        said = "spec.suspend is true: workers end what they run and go; jobs wait."
        return Verdict(TRUE, Reason.SUSPENDED, _say(said, Reason.SUSPENDED))
    return Verdict(FALSE, Reason.NOT_PAUSED, "The operator acts on this AgentQueue.")


def _notes(facts: Facts) -> Iterator[Trouble]:
    """What is as it was asked for, and not as somebody may think."""
    stranded = ", ".join(agent.name for agent in facts.agents if agent.is_stranded)
    if stranded and not facts.suspended:
        yield Trouble(Reason.NO_WORKERS, f"{stranded}: jobs wait and no worker is wanted")
    if facts.console and facts.console.trouble:
        yield replace(facts.console.trouble, said=f"console: {facts.console.trouble.said}")


def warning_of(warnings: Iterable[Trouble]) -> Verdict:
    """ConfigurationWarning: by the first, with the words of all."""
    given = list(warnings)
    if not given:
        return Verdict(FALSE, Reason.NO_WARNING, "Nothing to warn of.")
    return Verdict(TRUE, given[0].reason, " ".join(_trouble(one).message for one in given))


def _trouble(trouble: Trouble, who: str = "") -> Verdict:
    said = ": ".join(part for part in (who, trouble.said) if part) or str(trouble.reason)
    return Verdict(FALSE, trouble.reason, _say(said, trouble.reason))


def _agent_trouble(agent: AgentFacts, trouble: Trouble) -> Verdict:
    more = f" ({counted(trouble.more, 'more pod')} the same)" if trouble.more else ""
    return _trouble(Trouble(trouble.reason, trouble.said + more), f"agent {agent.name}")


def _about(agents: list[str], reason: Reason, what: str, *, status: ConditionStatus = FALSE) -> Verdict:
    return Verdict(status, reason, _say(f"{', '.join(agents)}: {what}.", reason))


def _say(what: str, reason: Reason) -> str:
    sentence = what if what.endswith((".", "!", "?")) else f"{what}."
    return f"{sentence} {REMEDIES[reason]}"


# The status itself


def status_of(facts: Facts, old: Object | None, *, now: str) -> Object:
    """The whole status. `old`: the one before, whose conditions' times are kept; `now`: RFC 3339."""
    agents = [_agent(agent) for agent in facts.agents]
    redis = {"endpoint": facts.redis.endpoint, "secretName": facts.redis.secret}
    return {
        "observedGeneration": facts.generation,
        "conditions": _conditions(conditions_of(facts), old, facts.generation, now),
        "redis": {name: value for name, value in redis.items() if value},
        "agents": agents,
        "readyAgents": f"{sum(agent.is_ready for agent in facts.agents)}/{len(agents)}",
        "pods": f"{sum(agent.ready for agent in facts.agents)}/{sum(agent.desired for agent in facts.agents)}",
        **({"console": dict(facts.console.access)} if facts.console and facts.console.access else {}),
        **_totals(facts.agents),
    }


def _totals(agents: Sequence[AgentFacts]) -> Mapping[str, int]:
    """None while a queue can't be read: that is better than wrong ones."""
    if not all(agent.read for agent in agents):
        return {}
    return {
        "waiting": sum(agent.waiting for agent in agents),
        "active": sum(agent.busy + agent.stalled for agent in agents),
        "deadLetters": sum(agent.dead for agent in agents),
    }


def _agent(agent: AgentFacts) -> Object:
    known = {
        "name": agent.name,
        "queueName": agent.queue,
        "deployment": agent.deployment,
        "desiredReplicas": agent.desired,
        "readyReplicas": agent.ready,
        "draining": agent.draining,
    }
    numbers = {
        "busySlots": agent.busy,
        "waiting": agent.waiting,
        "deadLetters": agent.dead,
        "oldestWaitingSeconds": agent.oldest_s,
    }
    scaled = {"lastScale": dict(agent.last_scale)} if agent.last_scale else {}
    return known | (numbers if agent.read else {}) | scaled


def held(old: Object | None, verdicts: Mapping[ConditionType, Verdict], *, generation: int, now: str) -> Object:
    """Return the status where nothing is done (paused, or a resource that can't be understood): the old one, but for
    these conditions; one that was never reported is Unknown.

    Where Ready is not among them nobody has looked at this generation, and it does not count as observed: `kubectl
    wait` and kstatus would take the old generation's Ready for the new one's.
    """
    unknown = Verdict(UNKNOWN, Reason.NOT_CHECKED, _say("Not looked at.", Reason.NOT_CHECKED))
    before = {one["type"]: one for one in (old or {}).get("conditions") or ()}
    told = _conditions({kind: verdicts.get(kind, unknown) for kind in ConditionType}, old, generation, now)
    conditions = [one if one["type"] in verdicts else before.get(one["type"], one) for one in told]
    seen = {"observedGeneration": generation} if ConditionType.READY in verdicts else {}
    return {**(old or {}), **seen, "conditions": conditions}


def paused() -> dict[ConditionType, Verdict]:
    """By the annotation: hands off."""
    said = (
        "The annotation agentqueue.dev/paused is true: the operator changes no object, and the rest of this status is "
        "old."
    )
    return {ConditionType.PAUSED: Verdict(TRUE, Reason.PAUSED, _say(said, Reason.PAUSED))}


def hindered(trouble: Trouble) -> dict[ConditionType, Verdict]:
    """Nothing can be done: the resource breaks rules of this version, or what must be known may not be read."""
    verdict = _trouble(trouble)
    holds = Verdict(TRUE, verdict.reason, verdict.message)
    return {
        ConditionType.READY: verdict,
        ConditionType.RECONCILING: reconciling(verdict, holds),
        ConditionType.STALLED: holds,
        ConditionType.CONFIGURATION_WARNING: holds,
    }


def _conditions(
    verdicts: Mapping[ConditionType, Verdict], old: Object | None, generation: int, now: str
) -> list[Object]:
    before = {one["type"]: one for one in (old or {}).get("conditions") or ()}
    return [_condition(kind, verdict, before.get(kind), generation, now) for kind, verdict in verdicts.items()]


def _condition(kind: ConditionType, verdict: Verdict, old: Object | None, generation: int, now: str) -> Object:
    status = str(verdict.status)
    kept = old is not None and old["status"] == status
    return {
        "type": str(kind),
        "status": status,
        "reason": str(verdict.reason),
        "message": verdict.message[:LONGEST],
        "lastTransitionTime": old["lastTransitionTime"] if old is not None and kept else now,
        "observedGeneration": generation,
    }


# When to write it


def is_worth_writing(old: Object | None, new: Object, *, since_s: float) -> bool:
    """Whether the difference is to be written now. `since_s`: since the last write."""
    if old is None or _steady(old) != _steady(new):
        return True
    if old == new:
        return False
    return since_s >= REWRITE_S or any(map(_is_notable, _counts(old), _counts(new)))


def _steady(given: Any) -> Any:
    if isinstance(given, Mapping):
        return {key: _steady(value) for key, value in given.items() if key not in VOLATILE}
    return [_steady(item) for item in given] if isinstance(given, list) else given


def _counts(status: Object) -> list[int]:
    """Not the age of the oldest job: it grows by itself."""
    parts = (status, *(status.get("agents") or ()))
    return [part.get(name) or 0 for part in parts for name in ("waiting", "active", "deadLetters", "busySlots")]


def _is_notable(before: int, after: int) -> bool:
    return abs(after - before) > NOTABLE * max(before, after)
