"""Computes the status of an AgentQueue and its conditions from facts. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from agentqueue.model.wording import counted
from agentqueue.spec import ConditionStatus, ConditionType
from agentqueue_operator.controller.status.reasons import Problem, Reason
from agentqueue_operator.resources.kinds import Object

TRUE, FALSE, UNKNOWN = ConditionStatus.TRUE, ConditionStatus.FALSE, ConditionStatus.UNKNOWN
REWRITE_S: Final = 30.0
"""Seconds between status writes if only `VOLATILE` numbers change. Each write is a revision in etcd."""
NOTABLE_CHANGE: Final = 0.1
"""Relative change of a volatile number that is written immediately, without waiting for `REWRITE_S`."""
VOLATILE: Final = frozenset({"waiting", "suspended", "active", "deadLetters", "busySlots", "oldestWaitingSeconds"})
"""Numbers in the status that change all the time."""
NO_ROOM: Final = frozenset({Reason.UNSCHEDULABLE, Reason.QUOTA_EXCEEDED})
"""Reasons that keep the autoscaler from adding pods."""
MAX_MESSAGE: Final = 4_000
"""Maximum length of a condition's message, in characters, so that many warnings do not make the object large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentFacts:
    """An agent as a reconcile observed it."""

    name: str
    queue: str
    deployment: str
    """Name of its Deployment."""
    made: bool = False
    """The Deployment exists."""
    desired: int = 0
    """Number of pods that was decided. More pods may run until they have finished their jobs."""
    ready: int = 0
    needed: int = 0
    """Number of pods that the resource promises: minReplicas, or the replicas of mode Fixed."""
    draining: int = 0
    registering: bool = False
    """No worker of this version has registered its jobs and schedules yet, and one starts for that."""
    registered_jobs: int | None = None
    """Number of jobs that this version has registered; None if it has registered nothing."""
    rolling_out: bool = False
    """Pods of an older version exist, or the Deployment controller has not observed the newest version."""
    problem: Problem | None = None
    """Most important problem of any pod."""
    newest_problem: Problem | None = None
    """Most important problem of the pods of the newest version."""
    auto: bool = True
    """The operator sets the number of pods from the queue."""
    read: bool = False
    """The queue could be read, so the numbers below are valid."""
    waiting: int = 0
    suspended: int = 0
    """Jobs that wait without a slot. They need no pod."""
    busy: int = 0
    stalled: int = 0
    """Started jobs without a live lease. They return to the queue soon."""
    oldest_s: int = 0
    """Age of the oldest waiting job, in seconds."""
    dead: int = 0
    """Number of dead letters."""
    last_scale: Mapping[str, Any] | None = None
    """`lastScale` of the status."""

    @property
    def serves(self) -> bool:
        """Return whether the agent has the pods that its resource promises."""
        return self.made and self.ready >= min(self.needed, self.desired)

    @property
    def failure(self) -> Problem | None:
        """Return the problem that keeps the newest version, or the promised number of pods, from running.

        Problems of an older version do not count during a rollout: the newest version may fix them.
        """
        if self.desired == 0:
            return None
        if self.rolling_out:
            return self.newest_problem
        return self.problem if self.ready == 0 or not self.serves else None

    @property
    def is_ready(self) -> bool:
        """Return whether the newest version is rolled out and serves, and the queue can be read."""
        serves = self.read and self.serves and not self.registering
        return serves and not self.rolling_out and self.failure is None

    @property
    def is_stranded(self) -> bool:
        """Return whether jobs wait in a queue that the operator does not scale and that has no workers."""
        return self.read and self.waiting + self.stalled > 0 and not self.auto and self.desired == 0 and self.ready == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RedisFacts:
    """The Redis server of an AgentQueue as a reconcile observed it."""

    endpoint: str | None = None
    """`host:port`, without credentials."""
    secret: str | None = None
    """Name of the Secret with its url."""
    answers: bool = False
    starting: Problem | None = None
    """Why it does not answer yet, although nothing is known to be wrong."""
    problem: Problem | None = None
    rolling_out: bool = False
    """The pod of the managed Redis still has an older version."""
    warning: Problem | None = None
    """It answers, but users should know about this."""
    requeue_after_s: float | None = None
    """Delay until the next reconcile, in seconds; None: the ordinary period."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsoleFacts:
    """The console as a reconcile observed it."""

    rolling_out: bool = False
    """The newest version has never been available."""
    problem: Problem | None = None
    newest_problem: Problem | None = None
    """Most important problem of the pods of the newest version."""
    access: Mapping[str, Any] | None = None
    """`console` of the status: how users reach it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All inputs of the status."""

    generation: int
    redis: RedisFacts = field(default_factory=RedisFacts)
    agents: tuple[AgentFacts, ...] = ()
    console: ConsoleFacts | None = None
    """None: the console is disabled."""
    pending: bool = False
    """Some objects could not be applied yet; the next reconcile applies them."""
    suspended: bool = False
    problems: tuple[Problem, ...] = ()
    """Problems of the objects and the resource, the most important first."""


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition without its times."""

    status: ConditionStatus
    reason: Reason
    message: str


NOT_STALLED: Final = Condition(FALSE, Reason.PROGRESS_POSSIBLE, "No problem needs a change by a user.")


def conditions_of(facts: Facts) -> dict[ConditionType, Condition]:
    """Return the conditions of an AgentQueue that was reconciled."""
    ready = _ready(facts)
    # While the pod of Redis is replaced, its problem does not count as final: the new version may fix it.
    failures = _failures(replace(facts, redis=RedisFacts()) if facts.redis.rolling_out else facts)
    final = next((problem for problem in failures if problem.is_final), None)
    stalled = replace(_failed(final), status=TRUE) if final else None
    return {
        ConditionType.READY: ready,
        ConditionType.RECONCILING: reconciling(ready, stalled),
        ConditionType.STALLED: stalled or NOT_STALLED,
        ConditionType.PROGRESSING: _progressing(facts),
        ConditionType.REDIS_READY: _redis_ready(facts.redis),
        ConditionType.METRICS_AVAILABLE: _metrics_available(facts),
        ConditionType.SCALING_ACTIVE: _scaling_active(facts),
        ConditionType.PAUSED: _condition(TRUE, Reason.SUSPENDED, "spec.suspend is true: workers end, jobs wait")
        if facts.suspended
        else Condition(FALSE, Reason.NOT_PAUSED, "The operator reconciles this AgentQueue."),
        ConditionType.CONFIGURATION_WARNING: _configuration_warning(facts),
    }


def _ready(facts: Facts) -> Condition:
    if failures := _failures(facts):
        return _failed(failures[0])
    if facts.redis.starting:
        return _failed(facts.redis.starting.about("Redis"))
    if facts.pending:
        return _condition(FALSE, Reason.OBJECTS_PENDING, "Some objects are not applied yet")
    if replaced := _rolling_out(facts):
        return _condition(FALSE, Reason.ROLLING_OUT, f"{replaced}: pods are replaced")
    if starting := _starting(facts):
        return _condition(FALSE, Reason.WORKERS_STARTING, f"{starting}: required workers are not ready yet")
    if registering := _registering(facts):
        return _condition(FALSE, Reason.REGISTERING, f"{registering}: no worker of this version has registered yet")
    if facts.suspended:
        return _condition(TRUE, Reason.SUSPENDED, "No job starts, because spec.suspend is true")
    return Condition(TRUE, Reason.AVAILABLE, "Redis answers, and every agent has its required workers.")


def _failures(facts: Facts) -> list[Problem]:
    """Return the problems that keep this generation from being rolled out, the most important first."""
    redis, console = facts.redis, facts.console
    failures = [problem for problem in facts.problems if problem.blocking]
    if redis.problem:
        failures.append(redis.problem.about("Redis"))
    failures += [agent.failure.about(f"agent {agent.name}") for agent in facts.agents if agent.failure]
    if console and console.rolling_out and console.newest_problem:
        failures.append(console.newest_problem.about("console"))
    return failures


def _rolling_out(facts: Facts) -> str:
    """Return the names of the parts whose pods are being replaced; empty: none."""
    names = ["Redis"] if facts.redis.rolling_out else []
    names += [agent.name for agent in facts.agents if agent.rolling_out]
    names += ["console"] if facts.console and facts.console.rolling_out else []
    return ", ".join(names)


def _starting(facts: Facts) -> str:
    """Return the names of the agents whose required workers are not ready; empty: none."""
    return ", ".join(agent.name for agent in facts.agents if not agent.serves)


def _registering(facts: Facts) -> str:
    """Return the names of the agents of which no worker has registered its jobs and schedules yet; empty: none."""
    return ", ".join(agent.name for agent in facts.agents if agent.registering)


def reconciling(ready: Condition, stalled: Condition | None) -> Condition:
    """Return kstatus's Reconciling: not ready, and on the way. It is never True together with Stalled."""
    if ready.status is TRUE:
        return Condition(FALSE, Reason.READY, "This generation is rolled out.")
    if stalled:
        return Condition(FALSE, stalled.reason, "See the condition Stalled.")
    return Condition(TRUE, ready.reason, ready.message)


def _progressing(facts: Facts) -> Condition:
    problems = [problem for problem in facts.problems if problem.blocking]
    problems += [facts.redis.problem.about("Redis")] if facts.redis.problem else []
    problems += [agent.problem.about(f"agent {agent.name}") for agent in facts.agents if agent.problem]
    if problems:
        return _failed(problems[0])
    if facts.redis.starting:
        return replace(_failed(facts.redis.starting.about("Redis")), status=TRUE)
    if replaced := _rolling_out(facts):
        return _condition(TRUE, Reason.ROLLING_OUT, f"{replaced}: pods are replaced")
    if starting := _starting(facts):
        return _condition(TRUE, Reason.WORKERS_STARTING, f"{starting}: workers start")
    if registering := _registering(facts):
        return _condition(TRUE, Reason.REGISTERING, f"{registering}: a worker starts and registers")
    if changes := _scaling_changes(facts.agents):
        return _condition(TRUE, Reason.SCALING, "; ".join(changes))
    return Condition(FALSE, Reason.STABLE, "Every object is in its desired state.")


def _scaling_changes(agents: Sequence[AgentFacts]) -> list[str]:
    """Describe which agents get more workers and which get fewer. Workers with jobs may take hours to end."""
    growing = ", ".join(agent.name for agent in agents if agent.ready < agent.desired)
    changes = [f"{growing}: more workers start"] if growing else []
    for agent in agents:
        if (ending := agent.ready - agent.desired) > 0:
            finish = "finishes its jobs and ends" if ending == 1 else "finish their jobs and end"
            changes.append(f"{agent.name}: {ending} of {counted(agent.ready, 'worker')} {finish}")
    return changes


def _redis_ready(redis: RedisFacts) -> Condition:
    if problem := redis.problem or redis.starting:
        return _failed(problem.about("Redis"))
    if redis.warning:
        return replace(_failed(redis.warning.about("Redis")), status=TRUE)
    return Condition(TRUE, Reason.AVAILABLE, f"Redis at {redis.endpoint} answers.")


def _metrics_available(facts: Facts) -> Condition:
    unread = ", ".join(agent.name for agent in facts.agents if not agent.read)
    if not unread:
        return Condition(TRUE, Reason.QUEUES_READABLE, "Every queue can be read.")
    if problem := facts.redis.problem or facts.redis.starting:
        return _failed(problem.about("The queues cannot be read: Redis"))
    return _condition(FALSE, Reason.UNKNOWN, f"{unread}: the queue could not be read")


def _scaling_active(facts: Facts) -> Condition:
    if facts.suspended:
        return _condition(FALSE, Reason.SUSPENDED, "spec.suspend is true: every agent scales to zero")
    if not any(agent.auto for agent in facts.agents):
        return Condition(FALSE, Reason.NO_AUTO_SCALING, "No agent has scaling.mode Auto.")
    metrics = _metrics_available(facts)
    if metrics.status is not TRUE:
        return metrics
    for agent in facts.agents:
        if agent.problem and agent.problem.reason in NO_ROOM:
            return _failed(agent.problem.about(f"agent {agent.name}"))
    others = ", ".join(agent.name for agent in facts.agents if not agent.auto)
    message = f"The number of workers follows the queues. Not autoscaled (scaling.mode is not Auto): {others}."
    return Condition(TRUE, Reason.QUEUE_DRIVEN, message if others else "The number of workers follows the queues.")


def _configuration_warning(facts: Facts) -> Condition:
    """Return the condition with the reason of the most important warning and the messages of all."""
    warnings = sorted(facts.problems, key=lambda problem: not problem.blocking)
    stranded = ", ".join(agent.name for agent in facts.agents if agent.is_stranded)
    if stranded and not facts.suspended:
        warnings.append(Problem(Reason.NO_WORKERS, f"{stranded}: jobs wait, but no worker is wanted"))
    if facts.console and facts.console.problem:
        warnings.append(facts.console.problem.about("console"))
    if not warnings:
        return Condition(FALSE, Reason.NO_WARNINGS, "No warnings.")
    return Condition(TRUE, warnings[0].reason, " ".join(_failed(warning).message for warning in warnings))


def _failed(problem: Problem) -> Condition:
    more = f" (and {counted(problem.more, 'more pod')})" if problem.more else ""
    return _condition(FALSE, problem.reason, (problem.message or str(problem.reason)) + more)


def _condition(status: ConditionStatus, reason: Reason, message: str) -> Condition:
    """Return a condition whose message ends with the remedy for its reason."""
    sentence = message if message.endswith((".", "!", "?")) else f"{message}."
    return Condition(status, reason, f"{sentence} {reason.remedy}")


# The status


def status_of(facts: Facts, old: Object | None, *, now: str) -> Object:
    """Return the whole status.

    Args:
        facts: what the reconcile observed.
        old: the status before, whose transition times are kept; None: there is none.
        now: the time in RFC 3339.
    """
    totals = {
        "waiting": sum(agent.waiting for agent in facts.agents),
        "suspended": sum(agent.suspended for agent in facts.agents),
        "active": sum(agent.busy + agent.stalled for agent in facts.agents),
        "deadLetters": sum(agent.dead for agent in facts.agents),
    }
    redis = {"endpoint": facts.redis.endpoint, "secretName": facts.redis.secret}
    return {
        "observedGeneration": facts.generation,
        "conditions": _with_times(conditions_of(facts), old, facts.generation, now),
        "redis": {name: value for name, value in redis.items() if value},
        "agents": [_agent_status(agent) for agent in facts.agents],
        "readyAgents": f"{sum(agent.is_ready for agent in facts.agents)}/{len(facts.agents)}",
        "pods": f"{sum(agent.ready for agent in facts.agents)}/{sum(agent.desired for agent in facts.agents)}",
        **({"console": dict(facts.console.access)} if facts.console and facts.console.access else {}),
        # Totals are omitted while a queue cannot be read: no number is better than a wrong one.
        **(totals if all(agent.read for agent in facts.agents) else {}),
    }


def _agent_status(agent: AgentFacts) -> Object:
    status = {
        "name": agent.name,
        "queueName": agent.queue,
        "deployment": agent.deployment,
        "desiredReplicas": agent.desired,
        "readyReplicas": agent.ready,
        "draining": agent.draining,
    }
    if agent.registered_jobs is not None:
        status["registeredJobs"] = agent.registered_jobs
    if agent.read:
        status |= {
            "busySlots": agent.busy,
            "waiting": agent.waiting,
            "suspended": agent.suspended,
            "deadLetters": agent.dead,
            "oldestWaitingSeconds": agent.oldest_s,
        }
    return status | ({"lastScale": dict(agent.last_scale)} if agent.last_scale else {})


def unreconciled_status(
    old: Object | None, conditions: Mapping[ConditionType, Condition], *, generation: int, now: str
) -> Object:
    """Return the status of an AgentQueue that is not reconciled: the old one with these conditions replaced.

    Conditions that were never reported are Unknown. Without a new Ready the generation does not count as observed:
    `kubectl wait` and kstatus would take the Ready of the old generation for the Ready of the new one.

    Args:
        old: the status before; None: there is none.
        conditions: the conditions to replace, from `paused` or `blocked`.
        generation: the generation of the resource.
        now: the time in RFC 3339.
    """
    unknown = _condition(UNKNOWN, Reason.UNKNOWN, "Not checked")
    before = {one["type"]: one for one in (old or {}).get("conditions") or ()}
    new = _with_times({kind: conditions.get(kind, unknown) for kind in ConditionType}, old, generation, now)
    observed = {"observedGeneration": generation} if ConditionType.READY in conditions else {}
    return {
        **(old or {}),
        **observed,
        "conditions": [one if one["type"] in conditions else before.get(one["type"], one) for one in new],
    }


def paused() -> dict[ConditionType, Condition]:
    """Return the conditions of an AgentQueue that is paused by the annotation."""
    message = "The annotation agentqueue.dev/paused is true: the operator changes no object and updates no other status"
    return {ConditionType.PAUSED: _condition(TRUE, Reason.PAUSED, message)}


def blocked(problem: Problem) -> dict[ConditionType, Condition]:
    """Return the conditions of an AgentQueue that cannot be reconciled, such as one with an invalid spec."""
    ready = _failed(problem)
    stalled = replace(ready, status=TRUE)
    return {
        ConditionType.READY: ready,
        ConditionType.RECONCILING: reconciling(ready, stalled),
        ConditionType.STALLED: stalled,
        ConditionType.CONFIGURATION_WARNING: stalled,
    }


def _with_times(
    conditions: Mapping[ConditionType, Condition], old: Object | None, generation: int, now: str
) -> list[Object]:
    """Return the conditions as the status has them. A transition time is kept while the condition's status stays."""
    before = {one["type"]: one for one in (old or {}).get("conditions") or ()}
    times = {
        kind: before[kind]["lastTransitionTime"]
        for kind, condition in conditions.items()
        if kind in before and before[kind]["status"] == condition.status
    }
    return [
        {
            "type": str(kind),
            "status": str(condition.status),
            "reason": str(condition.reason),
            "message": condition.message[:MAX_MESSAGE],
            "lastTransitionTime": times.get(kind, now),
            "observedGeneration": generation,
        }
        for kind, condition in conditions.items()
    ]


# When to write it


def is_worth_writing(old: Object | None, new: Object, *, since_s: float) -> bool:
    """Return whether the new status should be written now.

    Args:
        old: the status that was written last; None: there is none.
        new: the status to write.
        since_s: seconds since the last write.
    """
    if old is None or _without_volatile(old) != _without_volatile(new):
        return True
    if old == new:
        return False
    changes = zip(_counts(old), _counts(new), strict=True)
    return since_s >= REWRITE_S or any(abs(b - a) > NOTABLE_CHANGE * max(a, b) for a, b in changes)


def _without_volatile(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_volatile(item) for key, item in value.items() if key not in VOLATILE}
    return [_without_volatile(item) for item in value] if isinstance(value, list) else value


def _counts(status: Object) -> Iterable[int]:
    """Return the volatile numbers, except the age of the oldest job, which grows by itself."""
    parts = (status, *(status.get("agents") or ()))
    return [part.get(name) or 0 for part in parts for name in ("waiting", "active", "deadLetters", "busySlots")]
