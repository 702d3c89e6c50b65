"""A pass over one AgentQueue: observe, decide, apply, prune, tell. Level-triggered: what the last pass left is seen."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, Final

import orjson
import structlog

from agentqueue.errors import AgentQueueError, InvalidSpec
from agentqueue.spec import (
    AgentQueue,
    ConditionType,
    ManagedRedis,
    ResolvedAgent,
    ResolvedQueue,
    ScalingMode,
    SecretKey,
    check,
    resolve,
)
from agentqueue_operator.autoscaling.model import Load
from agentqueue_operator.autoscaling.wording import counted
from agentqueue_operator.controller.applier import Keeper, Kept
from agentqueue_operator.controller.ports import AgentPods, Cache, Cluster, Scaled, Scaler
from agentqueue_operator.controller.redis_connection import RETRY_S, Dial, Link
from agentqueue_operator.controller.referenced_content import FRESH_S, Contents, Missing
from agentqueue_operator.controller.scaling.worker_pods import replicas_of
from agentqueue_operator.controller.status.conditions import (
    AgentFacts,
    ConsoleFacts,
    Facts,
    RedisFacts,
    Verdict,
    held,
    hindered,
    paused,
    status_of,
)
from agentqueue_operator.controller.status.events import DRIFT_UNDONE
from agentqueue_operator.controller.status.pod_problems import Trouble, ready_count, trouble_of
from agentqueue_operator.controller.status.reasons import Reason
from agentqueue_operator.controller.status.rollout import Templates, is_rolling_out, newest_pods, was_complete
from agentqueue_operator.controller.status.writer import Report
from agentqueue_operator.queues.first_job_listener import listen
from agentqueue_operator.queues.housekeeper import Housekeeper, retention_of
from agentqueue_operator.queues.ports import HousekeepingResult
from agentqueue_operator.resources.children import AgentParts, agent_parts, last_content
from agentqueue_operator.resources.kinds import (
    DEPLOYMENT,
    POD,
    SECRET,
    STATEFUL_SET,
    VOLUME_CLAIM,
    Kind,
    Object,
    QueueRef,
)
from agentqueue_operator.resources.plan import conditional, is_owned
from agentqueue_operator.resources.render import (
    Images,
    Reference,
    RenderContext,
    console_name,
    redis_name,
    references_of,
    render,
    worker_name,
)
from agentqueue_operator.resources.render.connection import PASSWORD_KEY
from agentqueue_operator.resources.render.console import TOKEN_KEY, console_access
from agentqueue_operator.resources.render.names import COMPONENT_LABEL, CONSOLE

PAUSED: Final = "agentqueue.dev/paused"
"""Annotation: hands off."""
REUSE_TOLD: Final = timedelta(hours=1)
"""For how long after it was made an AgentQueue says that it goes on with an earlier one's jobs."""
log = structlog.get_logger("agentqueue.operator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """What the passes over all AgentQueues share.

    `pod_monitors`: whether the cluster knows PodMonitors. `make_secret`: a new password or token.
    """

    cluster: Cluster
    cache: Cache
    dial: Dial
    make_scaler: Callable[[QueueRef], Scaler]
    images: Images
    clock: Callable[[], float]
    """Monotonic seconds."""
    now: Callable[[], datetime]
    make_secret: Callable[[], str]
    wake: Callable[[QueueRef], None]
    operator_namespace: str | None = None
    read_secrets: bool = True
    poll_s: float = FRESH_S
    """How often users' Secrets and ConfigMaps are read."""
    pod_monitors: Callable[[], bool] = lambda: False
    leads: Callable[[], bool] = lambda: True
    """Whether this replica may act: what goes on between passes asks by itself."""
    on_observed: Callable[[QueueRef, ResolvedQueue, Mapping[str, Scaled], Mapping[str, AgentFacts]], None] = (
        lambda _ref, _queue, _scaled, _facts: None
    )
    """Told of each pass's figures: the metrics."""


@dataclass(slots=True)
class _Resolved:
    """The resource at one generation."""

    key: tuple[str, int]
    queue: ResolvedQueue | None
    problem: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Seen:
    """What a pass works on."""

    live: Object
    queue: ResolvedQueue
    children: Sequence[Object]
    parts: Mapping[str, AgentParts]


@dataclass(slots=True)
class _Secrets:
    """Generated ones, once known: they are never made anew while anybody knows them."""

    password: str | Missing | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(slots=True)
class _Content:
    """What users' Secrets and ConfigMaps hold."""

    hashes: dict[str, str] = field(default_factory=dict)
    missing: dict[str, frozenset[Reference]] = field(default_factory=dict)


class _Rendered:
    """The manifests of the last pass: most passes change nothing that they are made of.

    Kept as JSON: as objects they take four times the memory, and there may be hundreds of AgentQueues.
    """

    def __init__(self) -> None:
        self._made: tuple[ResolvedQueue, RenderContext, bytes] | None = None
        self._named: tuple[ResolvedQueue, Mapping[str, frozenset[Reference]]] | None = None

    def of(self, queue: ResolvedQueue, given: RenderContext) -> Sequence[Object]:
        """As `render`."""
        if self._made is None or self._made[0] is not queue or self._made[1] != given:
            self._made = (queue, given, orjson.dumps(render(queue, given)))
        manifests: Sequence[Object] = orjson.loads(self._made[2])
        return manifests

    def references(self, queue: ResolvedQueue, given: RenderContext) -> Mapping[str, frozenset[Reference]]:
        """As `references_of`: the resource's alone."""
        if self._named is None or self._named[0] is not queue:
            self._named = (queue, references_of(queue, given))
        return self._named[1]


class _Unreadable(Exception):
    """A Secret of ours may not be read: to make it anew could be to overwrite a password that is in use."""


class QueueReconciler:
    """`app.cluster.loops.Reconciler` of one AgentQueue."""

    def __init__(self, ref: QueueRef, place: Place) -> None:
        self._ref = ref
        self._place = place
        self._resolved: _Resolved | None = None
        self._rendered = _Rendered()
        self._claim: Object | None = None
        self._secrets = _Secrets()
        self._scaler = place.make_scaler(ref)
        self._contents = Contents(place.cluster, ref.namespace, clock=place.clock, fresh_s=place.poll_s)
        self._link = Link(self._contents, place.dial, clock=place.clock, now=place.now)
        unwatched = frozenset() if place.read_secrets else frozenset({SECRET})
        self._keeper = Keeper(place.cluster, ref, clock=place.clock, unwatched=unwatched)
        self._report = Report(place.cluster, ref, clock=place.clock)
        self._templates = Templates()
        self._listened: tuple[str, ...] = ()
        """Queues that nobody works on: a first job there wakes the loop."""
        self._listener: asyncio.Task[None] | None = None
        self._housekeeper = Housekeeper(lambda: self._link.queues, self._report_housekeeping, may_act=place.leads)
        self._housekeeping: asyncio.Task[None] | None = None
        self._skipped: Mapping[str, str] = {}

    async def run(self) -> float | None:
        """One pass."""
        live = self._place.cache.queue(self._ref)
        if live is None or "deletionTimestamp" in live["metadata"]:
            self._listened, self._housekeeper.retentions = (), {}
            return None
        resolved = self._resolve(live)
        if (live["metadata"].get("annotations") or {}).get(PAUSED) == "true":
            await self._hold(live, paused())
            if resolved.queue is not None:
                await self._keep_house_alone(resolved.queue)
            return None
        if resolved.queue is None:
            await self._hold(live, hindered(Trouble(Reason.INVALID_SPEC, resolved.problem)))
            return None
        return await self._reconcile(live, resolved.queue)

    async def close(self) -> None:
        """The end of what goes on between passes, and of the connections."""
        tasks = [task for task in (self._listener, self._housekeeping) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener = self._housekeeping = None
        await self._link.close()

    def _resolve(self, live: Object) -> _Resolved:
        """The resource understood; a rule that an older CRD did not have may be broken."""
        metadata = live["metadata"]
        key = (metadata["uid"], metadata.get("generation", 0))
        if self._resolved is None or self._resolved.key != key:
            self._resolved = _resolved(key, live)
        return self._resolved

    async def _hold(self, live: Object, verdicts: Mapping[ConditionType, Verdict]) -> None:
        """Nothing is touched but the status."""
        self._listened = ()
        generation = live["metadata"].get("generation", 0)
        old = self._report.last(live)
        await self._report.tell(live, held(old, verdicts, generation=generation, now=self._now()))

    async def _reconcile(self, live: Object, queue: ResolvedQueue) -> float | None:
        children = self._place.cache.children(self._ref)
        parts = agent_parts(queue.name, [agent.name for agent in queue.agents], children, live)
        seen = _Seen(live=live, queue=queue, children=children, parts=parts)
        try:
            await self._learn_secrets(queue)
        except _Unreadable as error:
            await self._hold(live, hindered(Trouble(Reason.FORBIDDEN, str(error))))
            return None
        redis = await self._link.look(queue, self._ref.namespace, children, self._secrets.password or Missing(UNUSED))
        self._keep_house(queue)
        scaled = await self._scale(seen)
        try:
            manifests, content = await self._render(seen, scaled)
        except InvalidSpec as error:
            await self._hold(live, hindered(Trouble(Reason.INVALID_SPEC, str(error))))
            return None
        kept = await self._keeper.keep(manifests, children, live)
        for undone in kept.undone:
            await self._place.cluster.tell(live, reason=DRIFT_UNDONE, note=undone, warning=True)
        reused = await self._reused_volume(seen)
        redis = replace(redis, note=kept.storage or redis.note, rolling_out=self._redis_rolls_out(seen))
        facts = self._facts(seen, redis, scaled, content, kept)
        facts = replace(facts, warnings=(*facts.warnings, *((reused,) if reused else ())))
        self._place.on_observed(self._ref, queue, scaled, {agent.name: agent for agent in facts.agents})
        await self._report.tell(live, status_of(facts, self._report.last(live), now=self._now()))
        self._listen(facts, scaled)
        waits = [one.requeue_after_s for one in scaled.values()] + [
            kept.requeue_after_s,
            RETRY_S if redis.starting else None,
        ]
        return min((seconds for seconds in waits if seconds is not None), default=None)

    # --- observe

    async def _learn_secrets(self, queue: ResolvedQueue) -> None:
        """The managed Redis's password and the console's token: the user's, or generated once."""
        if isinstance(queue.redis, ManagedRedis):
            named = queue.redis.auth.password_secret_ref
            known = self._secrets.password
            if named is not None:
                self._secrets.password = await self._users_password(named, redis_name(queue.name), known)
            elif not isinstance(known, str):
                self._secrets.password = await self._generated(redis_name(queue.name), PASSWORD_KEY)
        if queue.console.enabled and queue.console.token_secret_ref is None and self._secrets.token is None:
            self._secrets.token = await self._generated(console_name(queue.name), TOKEN_KEY)

    async def _users_password(self, named: SecretKey, own: str, known: str | Missing | None) -> str | Missing:
        """As the user's Secret has it; if that is not there, as it was: else all pods would start anew without one."""
        found = await self._contents.text(named.name, named.key)
        if not isinstance(found, Missing):
            return found
        last = known if isinstance(known, str) else await self._contents.text(own, PASSWORD_KEY)
        return found if isinstance(last, Missing) else last

    async def _generated(self, name: str, key: str) -> str:
        """As the Secret has it, else a new one."""
        found = await self._contents.text(name, key)
        if isinstance(found, Missing) and found.forbidden:
            raise _Unreadable(found.said)
        return self._place.make_secret() if isinstance(found, Missing) else found

    async def _content(self, queue: ResolvedQueue, given: RenderContext, children: Sequence[Object]) -> _Content:
        content = _Content()
        for name, references in self._rendered.references(queue, given).items():
            readable = references if self._place.read_secrets else {it for it in references if it.kind != SECRET}
            found, missing = await self._contents.hash(readable)
            if found is None and readable:  # not to be read for now: no reason to start the pods anew
                found = last_content(queue.name, name, children)
            if found is not None:
                content.hashes[name] = found
            if missing:
                content.missing[name] = missing
        return content

    async def _reused_volume(self, seen: _Seen) -> Trouble | None:
        """A volume claim outlives its AgentQueue; the next one of that name goes on with its jobs (OPERATOR 18)."""
        made = datetime.fromisoformat(seen.live["metadata"]["creationTimestamp"])
        if not isinstance(seen.queue.redis, ManagedRedis) or self._place.now() - made > REUSE_TOLD:
            return None
        if self._claim is None:
            self._claim = await self._keeper.get(VOLUME_CLAIM, f"data-{redis_name(seen.queue.name)}-0")
        if self._claim is None or datetime.fromisoformat(self._claim["metadata"]["creationTimestamp"]) >= made:
            return None
        return Trouble(Reason.VOLUME_REUSED, f"the volume claim {self._claim['metadata']['name']} was there before")

    # --- decide

    async def _scale(self, seen: _Seen) -> Mapping[str, Scaled]:
        agents = {
            name: AgentPods(deployment=part.deployment and self._keeper.newest(part.deployment), pods=part.pods)
            for name, part in seen.parts.items()
        }
        queues = self._link.queues
        if queues is not None:
            try:
                dead = list(await self._scaler.release_leases(seen.queue, agents, queues=queues))
            except AgentQueueError as error:  # their leases run out by themselves, and the next pass tries again
                log.warning("lease_release_failed", queue=str(self._ref), error=str(error))
            else:
                if dead:
                    log.info("workers_died", queue=str(self._ref), workers=dead)
        return await self._scaler.scale(seen.queue, agents, queues=queues, at=self._place.clock())

    async def _render(self, seen: _Seen, scaled: Mapping[str, Scaled]) -> tuple[Sequence[Object], _Content]:
        password = self._secrets.password
        given = RenderContext(
            namespace=self._ref.namespace,
            images=self._place.images,
            owner=seen.live["metadata"]["uid"],
            replicas={},
            password=password if isinstance(password, str) else None,
            console_token=self._secrets.token,
            operator_namespace=self._place.operator_namespace,
            pod_monitors=self._place.pod_monitors(),
        )
        content = await self._content(seen.queue, given, seen.children)
        late = self._place.clock()
        lowered = {
            worker_name(seen.queue.name, name): one.lowered_from["metadata"]["resourceVersion"]
            for name, one in scaled.items()
            if one.lowered_from is not None and late < one.lower_before
        }
        replicas = {
            name: replicas_of(one.lowered_from) if one.lowered_from and late >= one.lower_before else one.replicas
            for name, one in scaled.items()
        }
        given = replace(given, content_hashes=content.hashes, replicas=replicas)
        return conditional(self._rendered.of(seen.queue, given), lowered), content

    # --- tell

    def _facts(
        self, seen: _Seen, redis: RedisFacts, scaled: Mapping[str, Scaled], content: _Content, kept: Kept
    ) -> Facts:
        queue, now = seen.queue, self._place.now()
        before = {one["name"]: one.get("lastScale") for one in (self._report.last(seen.live) or {}).get("agents") or ()}
        agents = tuple(
            _agent_facts(
                agent,
                self._part(seen.parts[agent.name].deployment, seen.parts[agent.name].pods, now),
                scaled[agent.name],
                deployment=worker_name(queue.name, agent.name),
                missing=content.missing.get(agent.name),
                last_scale=before.get(agent.name),
            )
            for agent in queue.agents
        )
        self._templates.forget_all_but(one["metadata"]["uid"] for one in seen.children if "uid" in one["metadata"])
        warnings = [Trouble(Reason.WATCHES_DOWN, said) for said in self._place.cache.trouble()]
        warnings += _missing_warnings(content)
        warnings += [redis.note] if redis.note else []
        warnings += [Trouble(Reason.FORBIDDEN, f"{name}: {one.trouble}") for name, one in scaled.items() if one.trouble]
        warnings += [*kept.foreign, *(it for agent in queue.agents for it in _over_max(agent))]
        warnings += [
            Trouble(Reason.QUEUE_SHARED, f"{agent.name}: its queue {agent.queue_name} is scaled by {other} as well")
            for agent in queue.agents
            if (other := scaled[agent.name].shared_with)
        ]
        return Facts(
            generation=seen.live["metadata"].get("generation", 0),
            redis=redis,
            agents=agents,
            console=self._console(seen, now) if queue.console.enabled else None,
            pending=kept.requeue_after_s is not None,
            suspended=queue.suspend,
            hurdles=tuple(kept.hurdles),
            warnings=tuple(warnings),
        )

    def _part(self, deployment: Object | None, pods: Sequence[Object], now: datetime) -> "_Part":
        """A Deployment as this pass has left it: a change is not rolled out before its controller has seen it."""
        if deployment is None:
            return _Part(None, pods, rolling_out=False, trouble=trouble_of(pods, now=now))
        live = self._keeper.newest(deployment)
        observed = self._templates.is_observed(live)
        new_trouble = trouble_of(newest_pods(pods, live), live, now=now) if observed else None
        rolling_out = is_rolling_out(live, is_observed=observed)
        trouble = trouble_of(pods, live, now=now)
        return _Part(live, pods, rolling_out=rolling_out, trouble=trouble, new_trouble=new_trouble)

    def _console(self, seen: _Seen, now: datetime) -> ConsoleFacts:
        deployment = _child(seen, DEPLOYMENT, console_name(seen.queue.name))
        part = self._part(deployment, _pods_of(seen, CONSOLE), now)
        rolling_out = part.rolling_out or part.deployment is None or not was_complete(part.deployment)
        return ConsoleFacts(
            rolling_out=rolling_out,
            trouble=part.trouble,
            new_trouble=part.new_trouble,
            access=console_access(seen.queue, self._ref.namespace),
        )

    def _redis_rolls_out(self, seen: _Seen) -> bool:
        live = _child(seen, STATEFUL_SET, redis_name(seen.queue.name))
        if live is None:
            return False
        newest = self._keeper.newest(live)
        return is_rolling_out(newest, is_observed=self._templates.is_observed(newest))

    def _now(self) -> str:
        return self._place.now().strftime("%Y-%m-%dT%H:%M:%SZ")

    # --- what workers do beside running jobs, where there is none

    def _keep_house(self, queue: ResolvedQueue) -> None:
        """From now on, between passes too, whatever becomes of them."""
        self._housekeeper.retentions = {agent.queue_name: retention_of(agent) for agent in queue.agents}
        self._housekeeping = self._alive(self._housekeeping)
        if self._housekeeping is None:
            name = f"housekeeping {self._ref}"
            self._housekeeping = asyncio.create_task(self._housekeeper.run(), name=name)

    async def _keep_house_alone(self, queue: ResolvedQueue) -> None:
        """Objects are left alone, but no job stands still for that."""
        try:
            await self._learn_secrets(queue)
        except _Unreadable:  # then the server is not to be reached
            return
        children = self._place.cache.children(self._ref)
        await self._link.look(queue, self._ref.namespace, children, self._secrets.password or Missing(UNUSED))
        self._keep_house(queue)

    def _report_housekeeping(self, result: HousekeepingResult) -> None:
        if result.released:
            log.info("leases_reaped", queue=str(self._ref), jobs=result.released)
            self._place.wake(self._ref)
        if result.skipped and result.skipped != self._skipped:
            log.warning("housekeeping_incomplete", queue=str(self._ref), why=dict(result.skipped))
        self._skipped = result.skipped

    def _alive(self, task: "asyncio.Task[None] | None") -> "asyncio.Task[None] | None":
        """The task, None if there is none or it has failed: these run for ever."""
        if task is None or not task.done():
            return task
        log.error("task_ended", task=task.get_name(), error=repr(task.exception()))
        return None

    # --- the first job of a queue at zero

    def _listen(self, facts: Facts, scaled: Mapping[str, Scaled]) -> None:
        at_zero = (agent for agent in facts.agents if agent.auto and agent.read and not scaled[agent.name].replicas)
        idle = () if facts.suspended else tuple(agent.queue for agent in at_zero)
        self._listened = idle
        self._listener = self._alive(self._listener)
        if idle and self._listener is None:
            hear = listen(lambda: self._link.queues, lambda: self._listened, lambda: self._place.wake(self._ref))
            self._listener = asyncio.create_task(hear, name=f"listener {self._ref}")


UNUSED: Final = "no password is known yet"


@dataclass(frozen=True, slots=True)
class _Part:
    """A Deployment and its pods."""

    deployment: Object | None
    pods: Sequence[Object]
    rolling_out: bool
    trouble: Trouble | None
    """Of any of the pods."""
    new_trouble: Trouble | None = None
    """Of those of the newest version."""


def _child(seen: _Seen, kind: Kind, name: str) -> Object | None:
    found = (one for one in seen.children if one["kind"] == kind.kind and one["metadata"]["name"] == name)
    return next((one for one in found if is_owned(one, seen.live)), None)


def _pods_of(seen: _Seen, component: str) -> Sequence[Object]:
    pods = (one for one in seen.children if one["kind"] == POD.kind)
    return [one for one in pods if (one["metadata"].get("labels") or {}).get(COMPONENT_LABEL) == component]


def _resolved(key: tuple[str, int], live: Object) -> _Resolved:
    metadata = {name: live["metadata"][name] for name in ("name", "namespace", "uid") if name in live["metadata"]}
    resource = {"apiVersion": live["apiVersion"], "kind": live["kind"], "metadata": metadata, "spec": live.get("spec")}
    problems = check(resource)
    if problems:
        return _Resolved(key, None, "; ".join(map(str, problems)))
    return _Resolved(key, resolve(AgentQueue.model_validate(resource)))


def _agent_facts(
    agent: ResolvedAgent,
    part: _Part,
    scaled: Scaled,
    *,
    deployment: str,
    missing: frozenset[Reference] | None,
    last_scale: Mapping[str, Any] | None,
) -> AgentFacts:
    live, metrics, load = part.deployment, scaled.metrics, scaled.metrics.load if scaled.metrics else Load()
    waits = _waits_for(part, missing)
    present = live["spec"].get("replicas", 1) if live else 0
    return AgentFacts(
        name=agent.name,
        queue=agent.queue_name,
        deployment=deployment,
        made=live is not None,
        desired=present if scaled.wanted is None else scaled.wanted,
        ready=ready_count(part.pods),
        needed=_needed(agent),
        draining=scaled.draining,
        rolling_out=part.rolling_out,
        trouble=part.trouble or waits,
        new_trouble=part.new_trouble or waits,
        auto=agent.scaling.mode is ScalingMode.AUTO,
        read=metrics is not None,
        waiting=load.ready,
        busy=load.active,
        stalled=load.stalled,
        oldest_s=int(load.oldest_ready.total_seconds()),
        dead=metrics.dead if metrics else 0,
        last_scale=scaled.last_scale.model_dump(mode="json", by_alias=True) if scaled.last_scale else last_scale,
    )


def _waits_for(part: _Part, missing: frozenset[Reference] | None) -> Trouble | None:
    """A pod whose volume can't be mounted says nothing itself."""
    if not missing or not part.pods or ready_count(part.pods):
        return None
    return Trouble(Reason.REFERENCE_MISSING, _there_is_no(missing))


def _needed(agent: ResolvedAgent) -> int:
    """Pods without which the agent does not do what its resource promises."""
    match agent.scaling.mode:
        case ScalingMode.AUTO:
            return agent.scaling.min_replicas
        case ScalingMode.FIXED:
            return agent.scaling.replicas or 0
        case ScalingMode.EXTERNAL:
            return 1


def _missing_warnings(content: _Content) -> list[Trouble]:
    return [
        Trouble(Reason.REFERENCE_MISSING, f"{name}: {_there_is_no(missing)}")
        for name, missing in content.missing.items()
    ]


def _over_max(agent: ResolvedAgent) -> Iterator[Trouble]:
    """What the agent asks for and will not get."""
    scaling, most = agent.scaling, agent.scaling.max_replicas
    if scaling.mode is not ScalingMode.AUTO:
        return
    for name, asked, allowed, noun in (
        ("fallback.replicas", scaling.fallback.replicas or 0, most, "pod"),
        ("minIdleSlots", scaling.min_idle_slots, most * agent.concurrency, "slot"),
    ):
        if asked > allowed:
            said = f"{agent.name}: {name} of {asked} is more than the {counted(allowed, noun)} of maxReplicas"
            yield Trouble(Reason.OVER_MAX_REPLICAS, said)


def _there_is_no(missing: frozenset[Reference]) -> str:
    names = sorted(f"{one.kind.kind} {one.name}" for one in missing)
    return f"there is no {', no '.join(names)}"
