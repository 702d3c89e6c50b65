"""Reconciles one AgentQueue: observes, decides, applies, deletes and reports.

Level-triggered: its state is only a cache; a new instance decides the same.
"""

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

import orjson
import structlog

from agentqueue.errors import AgentQueueError, InvalidSpec
from agentqueue.spec import AgentQueue, ConditionType, ManagedRedis, ResolvedQueue, check, resolve
from agentqueue_operator.controller.applier import Applier, ApplyResult
from agentqueue_operator.controller.ports import AgentPods, Cache, Cluster, Scaled, Scaler
from agentqueue_operator.controller.redis_connection import NO_PASSWORD, AcquireServer, RedisConnection
from agentqueue_operator.controller.referenced_content import (
    TRUST_S,
    ForbiddenReference,
    MissingReference,
    SecretReader,
)
from agentqueue_operator.controller.scaling.worker_pods import replicas_of
from agentqueue_operator.controller.status.conditions import (
    AgentFacts,
    Condition,
    ConsoleFacts,
    Facts,
    RedisFacts,
    blocked,
    paused,
    status_of,
    unreconciled_status,
)
from agentqueue_operator.controller.status.events import DRIFT_UNDONE
from agentqueue_operator.controller.status.facts import MissingReferences, agent_facts, observe_rollout, warnings_of
from agentqueue_operator.controller.status.reasons import Problem, Reason
from agentqueue_operator.controller.status.rollout import Templates, is_rolling_out, was_complete
from agentqueue_operator.controller.status.writer import StatusWriter
from agentqueue_operator.queues.first_job_listener import listen
from agentqueue_operator.queues.housekeeper import Housekeeper, retention_of
from agentqueue_operator.queues.ports import HousekeepingResult
from agentqueue_operator.queues.schedule_writer import ScheduleWriter
from agentqueue_operator.resources.children import AgentChildren, agent_children, last_content_hash
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
from agentqueue_operator.resources.plan import is_owned, with_resource_versions
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
"""Annotation of an AgentQueue that the operator must not change."""
REUSE_WARNING_FOR: Final = timedelta(hours=1)
"""Time after creation in which the VolumeReused warning is shown. Later, everyone has seen it."""
log = structlog.get_logger("agentqueue.operator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """The dependencies that all reconcilers share."""

    cluster: Cluster
    cache: Cache
    acquire: AcquireServer
    """Returns a Redis server from the pool."""
    make_scaler: Callable[[QueueRef], Scaler]
    images: Images
    clock: Callable[[], float]
    """Returns monotonic seconds."""
    now: Callable[[], datetime]
    """Returns the time by the cluster's clock."""
    make_secret: Callable[[], str]
    """Returns a new password or token."""
    wake: Callable[[QueueRef], None]
    """Requests another reconcile."""
    operator_namespace: str | None = None
    read_secrets: bool = True
    """The operator may read the Secrets that agents refer to."""
    trust_s: float = TRUST_S
    """Seconds for which users' Secrets and ConfigMaps are used before they are read again."""
    pod_monitors: Callable[[], bool] = lambda: False
    """Returns whether the cluster has the kind PodMonitor."""
    leads: Callable[[], bool] = lambda: True
    """Returns whether this replica may act. Housekeeping calls this too, because it runs between reconciles."""
    on_observed: Callable[[QueueRef, ResolvedQueue, Mapping[str, Scaled], Mapping[str, AgentFacts]], None] = (
        lambda _ref, _queue, _scaled, _facts: None
    )
    """Receives the figures of each reconcile, for the metrics."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Observed:
    """The AgentQueue and its objects at the start of a reconcile."""

    live: Object
    queue: ResolvedQueue
    children: Sequence[Object]
    parts: Mapping[str, AgentChildren]

    def child(self, kind: Kind, name: str) -> Object | None:
        """Return an object that the AgentQueue owns, or None."""
        named = (child for child in self.children if child["kind"] == kind.kind and child["metadata"]["name"] == name)
        return next((child for child in named if is_owned(child, self.live)), None)


class _ManifestCache:
    """Cache of rendered manifests; inputs rarely change between reconciles.

    It holds JSON, because objects take four times the memory, and there may be hundreds of AgentQueues.
    """

    def __init__(self) -> None:
        self._rendered: tuple[ResolvedQueue, RenderContext, bytes] | None = None
        self._references: tuple[ResolvedQueue, Mapping[str, frozenset[Reference]]] | None = None

    def render(self, queue: ResolvedQueue, context: RenderContext) -> Sequence[Object]:
        """Return the manifests of `resources.render.render`."""
        if self._rendered is None or self._rendered[0] is not queue or self._rendered[1] != context:
            self._rendered = (queue, context, orjson.dumps(render(queue, context)))
        manifests: Sequence[Object] = orjson.loads(self._rendered[2])
        return manifests

    def references_of(self, queue: ResolvedQueue, context: RenderContext) -> Mapping[str, frozenset[Reference]]:
        """Return the references of `resources.render.references_of`, which depend on the resource alone."""
        if self._references is None or self._references[0] is not queue:
            self._references = (queue, references_of(queue, context))
        return self._references[1]


@dataclass(slots=True)
class _Credentials:
    """The password of the managed Redis and the console's token. Once known, they are never generated again."""

    password: str | None = field(default=None, repr=False)
    password_problem: str = NO_PASSWORD
    """Why the password is not known."""
    token: str | None = field(default=None, repr=False)


class QueueReconciler:
    """Reconciles one AgentQueue (`work_queue.Reconciler`).

    Args:
        ref: the AgentQueue.
        dependencies: shared with all other reconcilers.
    """

    def __init__(self, ref: QueueRef, dependencies: Dependencies) -> None:
        deps = self._deps = dependencies
        self._ref = ref
        self._resolved: tuple[tuple[str, int], ResolvedQueue] | None = None
        """((uid, generation), the resolved resource)."""
        self._manifests = _ManifestCache()
        self._volume_claim: Object | None = None
        """The volume claim of the managed Redis."""
        self._credentials = _Credentials()
        self._scaler = deps.make_scaler(ref)
        self._secrets = SecretReader(deps.cluster, ref.namespace, clock=deps.clock, trust_s=deps.trust_s)
        self._redis = RedisConnection(self._secrets, deps.acquire, clock=deps.clock, now=deps.now)
        unwatched = frozenset() if deps.read_secrets else frozenset({SECRET})
        self._applier = Applier(deps.cluster, ref, clock=deps.clock, unwatched=unwatched)
        self._status = StatusWriter(deps.cluster, ref, clock=deps.clock)
        self._templates = Templates()
        self._idle_queues: tuple[str, ...] = ()
        """Queues without workers. Their first job wakes this reconciler."""
        self._listener: asyncio.Task[None] | None = None
        self._housekeeper = Housekeeper(lambda: self._redis.queues, self._on_housekeeping, may_act=deps.leads)
        self._housekeeping: asyncio.Task[None] | None = None
        self._skipped: Mapping[str, str] = {}
        self._schedules = ScheduleWriter()

    async def run(self) -> float | None:
        """Reconcile once, and return the delay until the next reconcile in seconds (None: the ordinary period).

        Raises:
            ApiRefused, ApiUnavailable, Gone, NotLeading: the reconcile could not be completed.
        """
        live = self._deps.cache.queue(self._ref)
        if live is None or "deletionTimestamp" in live["metadata"]:
            self._idle_queues, self._housekeeper.retentions = (), {}
            return None
        if (live["metadata"].get("annotations") or {}).get(PAUSED) == "true":
            await self._write_without_reconcile(live, paused())
            # The objects stay unchanged, but jobs of dead workers are still recovered.
            with contextlib.suppress(InvalidSpec, ForbiddenReference):  # not reported while the AgentQueue is paused
                queue = self._resolve(live)
                await self._load_credentials(queue)
                await self._observe_redis(queue, self._deps.cache.children(self._ref))
                self._start_housekeeping(queue)
            return None
        try:
            return await self._reconcile(live, self._resolve(live))
        except InvalidSpec as error:
            problem = Problem(Reason.INVALID_SPEC, str(error))
        except ForbiddenReference as error:
            problem = Problem(Reason.FORBIDDEN, error.reason)
        await self._write_without_reconcile(live, blocked(problem))
        return None

    async def close(self) -> None:
        """End the background tasks and release the connections."""
        tasks = [task for task in (self._listener, self._housekeeping) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._listener = self._housekeeping = None
        await self._remove_schedules()
        await self._redis.close()

    async def _reconcile(self, live: Object, queue: ResolvedQueue) -> float | None:
        children = self._deps.cache.children(self._ref)
        parts = agent_children(queue.name, [agent.name for agent in queue.agents], children, live)
        observed = _Observed(live=live, queue=queue, children=children, parts=parts)
        # Secrets first: generating a second password would lock workers out of a running Redis.
        await self._load_credentials(queue)
        redis = await self._observe_redis(queue, children)
        self._start_housekeeping(queue)
        await self._write_schedules(observed)
        scaled = await self._scale(observed)
        manifests, missing = await self._render(observed, scaled)
        applied = await self._applier.apply_all(manifests, children, live)
        for undone in applied.undone:
            await self._deps.cluster.record_event(live, reason=DRIFT_UNDONE, note=undone, warning=True)
        facts = await self._collect_facts(observed, redis, scaled, missing, applied)
        self._deps.on_observed(self._ref, queue, scaled, {agent.name: agent for agent in facts.agents})
        await self._status.write_status(live, status_of(facts, self._status.last(live), now=self._now()))
        self._listen_for_first_jobs(facts, scaled)
        delays = [redis.requeue_after_s, applied.requeue_after_s, *(agent.requeue_after_s for agent in scaled.values())]
        return min((delay for delay in delays if delay is not None), default=None)

    def _resolve(self, live: Object) -> ResolvedQueue:
        """Return the resolved resource.

        Raises:
            InvalidSpec: it breaks a rule that the CRD of an older release did not have.
        """
        metadata = live["metadata"]
        key = (metadata["uid"], metadata.get("generation", 0))
        if self._resolved is None or self._resolved[0] != key:
            resource = {
                "apiVersion": live["apiVersion"],
                "kind": live["kind"],
                "metadata": {name: metadata[name] for name in ("name", "namespace", "uid") if name in metadata},
                "spec": live.get("spec"),
            }
            if problems := check(resource):
                raise InvalidSpec("; ".join(map(str, problems)))
            self._resolved = (key, resolve(AgentQueue.model_validate(resource)))
        return self._resolved[1]

    async def _write_without_reconcile(self, live: Object, conditions: Mapping[ConditionType, Condition]) -> None:
        self._idle_queues = ()
        generation, old = live["metadata"].get("generation", 0), self._status.last(live)
        status = unreconciled_status(old, conditions, generation=generation, now=self._now())
        await self._status.write_status(live, status)

    def _now(self) -> str:
        return self._deps.now().strftime("%Y-%m-%dT%H:%M:%SZ")

    # --- Observe

    async def _load_credentials(self, queue: ResolvedQueue) -> None:
        """Load the managed Redis's password and the console's token.

        Read the user's if the resource names a Secret; otherwise generate one, once.

        Raises:
            ForbiddenReference: the Secret could exist, but the operator has no right to read it.
        """
        known = self._credentials
        if isinstance(queue.redis, ManagedRedis):
            named, own = queue.redis.auth.password_secret_ref, redis_name(queue.name)
            if named is None and known.password is None:
                known.password = await self._read_or_generate(own, PASSWORD_KEY)
            elif named is not None:
                # Fall back to the last known password, so that a missing Secret does not restart every pod.
                try:
                    known.password = await self._secrets.read(named.name, named.key)
                except MissingReference as missing:
                    if known.password is None:
                        known.password_problem = missing.reason
                        with contextlib.suppress(MissingReference):
                            known.password = await self._secrets.read(own, PASSWORD_KEY)
        if queue.console.enabled and queue.console.token_secret_ref is None and known.token is None:
            known.token = await self._read_or_generate(console_name(queue.name), TOKEN_KEY)

    async def _read_or_generate(self, name: str, key: str) -> str:
        try:
            return await self._secrets.read(name, key)
        except ForbiddenReference:
            raise
        except MissingReference:
            return self._deps.make_secret()

    async def _observe_redis(self, queue: ResolvedQueue, children: Sequence[Object]) -> RedisFacts:
        return await self._redis.observe(
            queue,
            self._ref.namespace,
            children,
            self._credentials.password,
            password_problem=self._credentials.password_problem,
        )

    # --- Schedules

    async def _write_schedules(self, observed: _Observed) -> None:
        """Write the schedules of the resource to the queues, and remove those of queues that no agent has any more."""
        queues = self._redis.queues
        if queues is None:
            return
        self._deps.cluster.check_leads()
        schedules = {agent.queue_name: agent.schedules for agent in observed.queue.agents}
        before = (self._status.last(observed.live) or {}).get("agents") or ()
        left = {agent["queueName"] for agent in before if agent.get("queueName")} - schedules.keys()
        try:
            await self._schedules.write(queues, schedules, left=left)
        except AgentQueueError as error:  # the next reconcile retries
            log.warning("schedules_not_written", agentqueue=str(self._ref), error=str(error))

    async def _remove_schedules(self) -> None:
        """Remove the schedules of a deleted AgentQueue from an external Redis, which stays."""
        queues, resolved = self._redis.queues, self._resolved
        is_gone = self._deps.leads() and self._deps.cache.queue(self._ref) is None
        if queues is None or resolved is None or not is_gone or isinstance(resolved[1].redis, ManagedRedis):
            return
        await self._schedules.remove_all(queues, [agent.queue_name for agent in resolved[1].agents])

    # --- Decide

    async def _scale(self, observed: _Observed) -> Mapping[str, Scaled]:
        agents = {
            name: AgentPods(deployment=part.deployment and self._applier.newest(part.deployment), pods=part.pods)
            for name, part in observed.parts.items()
        }
        queues = self._redis.queues
        if queues is not None:
            try:
                crashed_workers = list(await self._scaler.release_leases(observed.queue, agents, queues=queues))
            except AgentQueueError as error:  # the leases expire by themselves, and the next reconcile retries
                log.warning("lease_release_failed", agentqueue=str(self._ref), error=str(error))
            else:
                if crashed_workers:
                    log.info("workers_died", agentqueue=str(self._ref), workers=crashed_workers)
        return await self._scaler.scale(observed.queue, agents, queues=queues, at=self._deps.clock())

    async def _render(
        self, observed: _Observed, scaled: Mapping[str, Scaled]
    ) -> tuple[Sequence[Object], MissingReferences]:
        """Return the manifests, and the Secrets and ConfigMaps that do not exist."""
        queue = observed.queue
        context = RenderContext(
            namespace=self._ref.namespace,
            images=self._deps.images,
            owner=observed.live["metadata"]["uid"],
            replicas={},
            password=self._credentials.password,
            console_token=self._credentials.token,
            operator_namespace=self._deps.operator_namespace,
            pod_monitors=self._deps.pod_monitors(),
        )
        hashes: dict[str, str] = {}
        missing: dict[str, frozenset[Reference]] = {}
        for part, references in self._manifests.references_of(queue, context).items():
            readable = {it for it in references if self._deps.read_secrets or it.kind != SECRET}
            found, absent = await self._secrets.hash(readable)
            if found is None and readable:  # unreadable for now, which is no reason to restart the pods
                found = last_content_hash(queue.name, part, observed.children)
            if found is not None:
                hashes[part] = found
            if absent:
                missing[part] = absent
        replicas: dict[str, int | None] = {}
        versions: dict[str, str] = {}  # Deployment -> resourceVersion on which the lower number was decided
        for name, agent in scaled.items():
            replicas[name] = agent.replicas
            if agent.lowered_on is not None and self._deps.clock() < agent.lower_deadline:
                versions[worker_name(queue.name, name)] = agent.lowered_on["metadata"]["resourceVersion"]
            elif agent.lowered_on is not None:  # the observation is too old
                replicas[name] = replicas_of(agent.lowered_on)
        manifests = self._manifests.render(queue, replace(context, content_hashes=hashes, replicas=replicas))
        return with_resource_versions(manifests, versions), missing

    # --- Report

    async def _collect_facts(
        self,
        observed: _Observed,
        redis: RedisFacts,
        scaled: Mapping[str, Scaled],
        missing: MissingReferences,
        applied: ApplyResult,
    ) -> Facts:
        queue, last = observed.queue, self._status.last(observed.live) or {}
        last_scales = {agent["name"]: agent.get("lastScale") for agent in last.get("agents") or ()}
        agents = []
        for agent in queue.agents:
            part = observed.parts[agent.name]
            rollout = observe_rollout(self._newest(part.deployment), part.pods, self._templates, now=self._deps.now())
            absent, last_scale = missing.get(agent.name, frozenset()), last_scales.get(agent.name)
            agents.append(agent_facts(queue, agent, rollout, scaled[agent.name], missing=absent, last_scale=last_scale))
        stateful_set = self._newest(observed.child(STATEFUL_SET, redis_name(queue.name)))
        redis = replace(
            redis,
            warning=applied.storage_problem or redis.warning,
            rolling_out=stateful_set is not None
            and is_rolling_out(stateful_set, is_observed=self._templates.is_observed(stateful_set)),
        )
        console = self._console_facts(observed) if queue.console.enabled else None
        watches = [Problem(Reason.WATCHES_DOWN, it, blocking=False) for it in self._deps.cache.watch_problems()]
        reused = await self._reused_volume(observed)
        problems = [*watches, redis.warning, *warnings_of(queue, scaled, missing), *applied.problems, reused]
        self._templates.forget_all_but(
            child["metadata"]["uid"] for child in observed.children if "uid" in child["metadata"]
        )
        return Facts(
            generation=observed.live["metadata"].get("generation", 0),
            redis=redis,
            agents=tuple(agents),
            console=console,
            pending=applied.requeue_after_s is not None,
            suspended=queue.suspend,
            problems=tuple(problem for problem in problems if problem is not None),
        )

    def _newest(self, cached: Object | None) -> Object | None:
        return None if cached is None else self._applier.newest(cached)

    def _console_facts(self, observed: _Observed) -> ConsoleFacts:
        deployment = self._newest(observed.child(DEPLOYMENT, console_name(observed.queue.name)))
        pods = [
            child
            for child in observed.children
            if child["kind"] == POD.kind and (child["metadata"].get("labels") or {}).get(COMPONENT_LABEL) == CONSOLE
        ]
        rollout = observe_rollout(deployment, pods, self._templates, now=self._deps.now())
        return ConsoleFacts(
            rolling_out=rollout.rolling_out or deployment is None or not was_complete(deployment),
            problem=rollout.problem,
            newest_problem=rollout.newest_problem,
            access=console_access(observed.queue, self._ref.namespace),
        )

    async def _reused_volume(self, observed: _Observed) -> Problem | None:
        """Return a warning if the volume claim is older than the AgentQueue: jobs of an earlier one continue."""
        created = datetime.fromisoformat(observed.live["metadata"]["creationTimestamp"])
        is_managed = isinstance(observed.queue.redis, ManagedRedis)
        if not is_managed or self._deps.now() - created > REUSE_WARNING_FOR:
            return None
        if self._volume_claim is None:
            self._volume_claim = await self._applier.get(VOLUME_CLAIM, f"data-{redis_name(observed.queue.name)}-0")
        claim = self._volume_claim
        if claim is None or datetime.fromisoformat(claim["metadata"]["creationTimestamp"]) >= created:
            return None
        message = f"the volume claim {claim['metadata']['name']} existed before the AgentQueue"
        return Problem(Reason.VOLUME_REUSED, message, blocking=False)

    # --- Between reconciles

    def _start_housekeeping(self, queue: ResolvedQueue) -> None:
        """Run housekeeping for the queues between reconciles, in place of workers that may not exist."""
        self._housekeeper.retentions = {agent.queue_name: retention_of(agent) for agent in queue.agents}
        if not _is_running(self._housekeeping):
            self._housekeeping = asyncio.create_task(self._housekeeper.run(), name=f"housekeeping {self._ref}")

    def _on_housekeeping(self, result: HousekeepingResult) -> None:
        if result.released:
            log.info("leases_reaped", agentqueue=str(self._ref), jobs=result.released)
            self._deps.wake(self._ref)
        if result.skipped and result.skipped != self._skipped:
            log.warning("housekeeping_incomplete", agentqueue=str(self._ref), reasons=dict(result.skipped))
        self._skipped = result.skipped

    def _listen_for_first_jobs(self, facts: Facts, scaled: Mapping[str, Scaled]) -> None:
        """Wake this reconciler at the first job of a queue that is scaled to zero."""
        at_zero = [agent for agent in facts.agents if agent.auto and agent.read and not scaled[agent.name].replicas]
        self._idle_queues = () if facts.suspended else tuple(agent.queue for agent in at_zero)
        if not _is_running(self._listener):
            self._listener = None
        if self._idle_queues and self._listener is None:
            listening = listen(
                lambda: self._redis.queues, lambda: self._idle_queues, lambda: self._deps.wake(self._ref)
            )
            self._listener = asyncio.create_task(listening, name=f"listener {self._ref}")


def _is_running(task: "asyncio.Task[None] | None") -> bool:
    """Return whether the background task runs. These tasks only end by an error, which is logged."""
    if task is None:
        return False
    if task.done():
        log.error("background_task_failed", task=task.get_name(), error=repr(task.exception()))
    return not task.done()
