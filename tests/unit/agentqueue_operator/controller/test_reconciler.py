"""Reconciles of an AgentQueue, on a cluster and a Redis in memory."""

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentqueue.errors import QueueUnavailable
from agentqueue.spec import AgentQueueStatus, LastScale, ResolvedQueue
from agentqueue.store import ServerOptions
from agentqueue_operator.autoscaling.model import (
    Load,
    Memory,
    ScaleTo,
    ScalingPolicy,
    ScalingReason,
    ScalingSnapshot,
    Terms,
)
from agentqueue_operator.autoscaling.queue_metrics import QueueMetrics
from agentqueue_operator.controller.ports import AgentPods, ApiUnavailable, Scaled
from agentqueue_operator.controller.reconciler import Dependencies, QueueReconciler
from agentqueue_operator.controller.referenced_content import TRUST_S
from agentqueue_operator.controller.status.reasons import Problem, Reason
from agentqueue_operator.queues.ports import Queues
from agentqueue_operator.resources.kinds import Object, QueueRef
from agentqueue_operator.resources.render import Images, redis_name, worker_name
from tests.support.fake_cluster import FakeCluster, refused
from tests.support.objects import OWNER
from tests.support.scaling import FakeQueues

REF = QueueRef("n", "q")
REDIS, WORKER = redis_name("q"), worker_name("q", "a")
MADE = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def scale_to(replicas: int) -> ScaleTo:
    terms = Terms(snapshot=ScalingSnapshot(at=0.0, load=None), current=4, policy=ScalingPolicy())
    return ScaleTo(replicas, ScalingReason.FIXED, terms, Memory())


@dataclass
class FakeScaler:
    replicas: dict[str, int | None] = field(default_factory=lambda: {"a": 1})
    wanted: int | None = None
    waiting: int = 0
    dead: list[str] = field(default_factory=list)
    error: Exception | None = None
    requeue_after_s: float | None = None
    last: LastScale | None = None
    released: int = 0
    error_text: str = ""
    shared_with: str = ""
    seen: Mapping[str, AgentPods] = field(default_factory=dict)

    async def scale(
        self, queue: ResolvedQueue, agents: Mapping[str, AgentPods], *, queues: Queues | None, at: float
    ) -> Mapping[str, Scaled]:
        self.seen = agents
        load = Load(ready=self.waiting, active=2, oldest_ready=timedelta(seconds=3))
        look = QueueMetrics(load=load, heartbeats={}, marked={}, delayed=0, done=0, dead=0, arrived=0, run_ms=0)
        return {
            agent.name: Scaled(
                replicas=self.replicas.get(agent.name, 0),
                decision=None if self.wanted is None else scale_to(self.wanted),
                metrics=look if queues is not None else None,
                requeue_after_s=self.requeue_after_s,
                last_scale=self.last,
                error=self.error_text,
                shared_with=self.shared_with,
            )
            for agent in queue.agents
        }

    async def release_leases(
        self, queue: ResolvedQueue, agents: Mapping[str, AgentPods], *, queues: Queues
    ) -> Sequence[str]:
        self.released += 1
        if self.error:
            raise self.error
        return self.dead


@dataclass
class FirstJobs(FakeQueues):
    """The first job of a queue that is scaled to zero."""

    came: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None
    listened: list[tuple[str, ...]] = field(default_factory=list)

    async def wait_for_jobs(self, queues: Sequence[str], timeout_s: float) -> bool:
        self.listened.append(tuple(queues))
        if self.error:
            error, self.error = self.error, None
            raise error
        await self.came.wait()
        self.came.clear()
        return True


@dataclass
class FakeRedis:
    """A Redis server from the pool."""

    problem: Problem | None = None
    queues: FirstJobs = field(default_factory=FirstJobs)
    acquired: list[ServerOptions] = field(default_factory=list)
    closed: int = 0

    def acquire(self, options: ServerOptions) -> "FakeRedis":
        self.acquired.append(options)
        return self

    async def check(self) -> Problem | None:
        return self.problem

    async def close(self) -> None:
        self.closed += 1


@dataclass
class FakeWorld:
    cluster: FakeCluster
    scaler: FakeScaler
    redis: FakeRedis
    at: float = 1000.0
    woken: list[QueueRef] = field(default_factory=list)
    hurried: asyncio.Event = field(default_factory=asyncio.Event)
    observed: int = 0
    made: int = 0

    def __post_init__(self) -> None:
        self.set_up()

    def set_up(self, **changes: Any) -> "FakeWorld":
        self.reconciler = QueueReconciler(REF, self.dependencies(**changes))
        return self

    def dependencies(self, **more: Any) -> Dependencies:
        dependencies = Dependencies(
            cluster=self.cluster,
            cache=self.cluster,
            acquire=self.redis.acquire,
            make_scaler=lambda _: self.scaler,
            images=Images("worker:1", "redis:1", "console:1"),
            clock=lambda: self.at,
            now=lambda: MADE + timedelta(seconds=self.at - 1000),
            make_secret=self.secret,
            wake=self.wake,
            on_observed=self.on_observed,
        )
        return replace(dependencies, **more)

    def secret(self) -> str:
        self.made += 1
        return f"secret-{self.made}"

    def wake(self, ref: QueueRef) -> None:
        self.woken.append(ref)
        self.hurried.set()

    def on_observed(self, *_: Any) -> None:
        self.observed += 1

    async def run(self, seconds: float = 5.0) -> float | None:
        self.at += seconds
        return await self.reconciler.run()

    @property
    def status(self) -> Object:
        return self.cluster.statuses[-1]

    def condition(self, kind: str) -> tuple[str, str]:
        (found,) = [one for one in self.status["conditions"] if one["type"] == kind]
        return found["status"], found["reason"]

    def put_queue(self, *, generation: int = 1, annotations: Object | None = None, **spec: Any) -> None:
        agent = {"name": "a", "handler": "m:agent", "scaling": {"minReplicas": 1}}
        given = {"agents": [agent], "console": {"enabled": False}} | spec
        metadata = {
            **OWNER["metadata"],
            "generation": generation,
            "annotations": annotations or {},
            "creationTimestamp": "2026-01-01T12:00:00Z",
        }
        self.cluster.queues[REF] = {**OWNER, "metadata": metadata, "spec": given}

    def put_pod(self, name: str, *, ready: bool = True, since: datetime = MADE, **labels: str) -> None:
        condition = {"type": "Ready", "status": str(ready), "lastTransitionTime": since.isoformat()}
        metadata = {"name": name, "labels": {f"agentqueue.dev/{key}": value for key, value in labels.items()}}
        self.cluster.put({"kind": "Pod", "metadata": metadata, "status": {"conditions": [condition]}})

    def put_secret(self, name: str, **data: str) -> None:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
        self.cluster.put({"kind": "Secret", "metadata": {"name": name}, "data": encoded})

    def redis_up(self) -> None:
        """Add a Redis pod that has been ready for minutes, and a ready worker pod."""
        self.put_pod("redis-0", component="redis", since=MADE - timedelta(minutes=5))
        self.put_pod("a-1", component="worker", agent="a")


@pytest.fixture
async def world() -> AsyncIterator[FakeWorld]:
    world = FakeWorld(FakeCluster(), FakeScaler(), FakeRedis())
    yield world
    await world.reconciler.close()


async def test_from_nothing_to_ready(world: FakeWorld) -> None:
    world.put_queue()
    assert await world.run() == 1.0  # Redis starts: soon again
    assert world.condition("Ready") == ("False", "RedisStarting")
    assert {("StatefulSet", REDIS), ("Secret", REDIS), ("Service", REDIS), ("Deployment", WORKER)} <= set(
        world.cluster.objects
    )
    assert world.redis.acquired == []
    world.redis_up()
    assert await world.run() is None
    AgentQueueStatus.model_validate(world.status)
    assert world.condition("Ready") == ("True", "Available")
    assert world.status["readyAgents"] == "1/1"
    assert [reason for reason, _ in world.cluster.events] == ["Ready", "RedisReady"]
    (options,) = world.redis.acquired
    assert options.url == f"redis://default:secret-1@{REDIS}.n.svc:6379/0"
    assert world.observed == 2


async def test_workers_keep_their_marks_while_the_api_server_does_not_answer_about_secrets(world: FakeWorld) -> None:
    """The scaler runs, which renews drain marks, and Redis is reached as before."""
    world.put_secret("u", url="redis://one:6380")
    world.put_queue(redis={"external": {"urlSecretRef": {"name": "u", "key": "url"}}})
    await world.run()
    world.cluster.refuse["get", "Secret"] = ApiUnavailable("no answer")
    for _ in range(3):
        world.scaler.seen = {}
        await world.run(seconds=TRUST_S + 1)
        assert "a" in world.scaler.seen
    assert (len(world.redis.acquired), world.redis.closed) == (1, 0)


async def test_at_rest_nothing_is_requested_and_nothing_written(world: FakeWorld) -> None:
    world.put_queue()
    world.redis_up()
    await world.run()
    await world.run()
    world.cluster.calls.clear()
    for _ in range(10):
        await world.run()
    assert world.cluster.writes() == []
    assert all(kind == "PersistentVolumeClaim" for _, kind, _ in world.cluster.calls)


async def test_a_password_is_generated_once(world: FakeWorld) -> None:
    world.put_queue(console={"enabled": True})
    await world.run()
    made = world.made
    world.set_up()  # another operator
    await world.run()
    assert (made, world.made) == (2, 2)
    del world.cluster.objects["Secret", REDIS]
    before = world.redis.acquired
    await world.run()
    assert base64.b64decode(world.cluster.objects["Secret", REDIS]["data"]["password"]).decode().startswith("secret-")
    assert (world.made, world.redis.acquired) == (2, before)


async def test_the_user_s_password_is_used(world: FakeWorld) -> None:
    world.put_queue(redis={"managed": {"auth": {"passwordSecretRef": {"name": "mine", "key": "pw"}}}})
    world.redis_up()
    await world.run()
    assert world.condition("RedisReady") == ("False", "ReferenceMissing")
    assert ("Secret", REDIS) not in world.cluster.objects
    world.put_secret("mine", pw="p@ss")
    await world.run(6)
    assert world.redis.acquired[-1].url == f"redis://default:p%40ss@{REDIS}.n.svc:6379/0"
    del world.cluster.objects["Secret", "mine"]
    await world.run(100)
    assert ("Secret", REDIS) in world.cluster.objects  # once known it stays known
    assert world.condition("Ready") == ("True", "Available")


async def test_a_forbidden_password_is_not_generated_again(world: FakeWorld) -> None:
    world.put_queue(console={"enabled": True})
    await world.run()
    world.set_up()  # another operator
    world.cluster.refuse["get", "Secret"] = refused(403, "cannot get", "Forbidden")
    world.cluster.calls.clear()
    await world.run()
    assert world.condition("Ready") == ("False", "Forbidden")
    assert world.cluster.writes() == [("status", "AgentQueue", "q")]
    world.cluster.refuse.clear()
    await world.run(6)
    assert world.condition("ConfigurationWarning") == ("False", "NoWarnings")
    assert world.made == 2


async def test_a_paused_agent_queue_is_not_changed(world: FakeWorld) -> None:
    world.put_queue()
    await world.run()
    world.put_queue(generation=2, annotations={"agentqueue.dev/paused": "true"}, networkPolicy={"enabled": False})
    world.cluster.calls.clear()
    await world.run()
    await world.run()
    assert world.cluster.writes() == [("status", "AgentQueue", "q")]
    assert world.condition("Paused") == ("True", "PausedByAnnotation")
    world.put_queue(generation=3)
    await world.run()
    assert world.condition("Paused") == ("False", "NotPaused")


@pytest.mark.parametrize(
    "spec",
    [
        pytest.param({"agents": [{"name": "redis", "handler": "m:agent"}]}, id="a-rule"),
        pytest.param({"agents": [{"name": "a", "handler": 1}]}, id="a-type"),
        pytest.param({"nonsense": 1}, id="an-unknown-field"),
    ],
)
async def test_a_resource_that_an_older_crd_accepted(world: FakeWorld, spec: Object) -> None:
    world.put_queue()
    await world.run()
    world.put_queue(generation=2, **spec)
    world.cluster.calls.clear()
    await world.run()
    assert world.cluster.writes() == [("status", "AgentQueue", "q")]
    assert world.condition("Ready") == ("False", "InvalidSpec")
    assert "spec." in next(one["message"] for one in world.status["conditions"] if one["type"] == "Ready")


async def test_a_pod_template_that_can_t_be_merged(world: FakeWorld) -> None:
    template = {"spec": {"containers": [{"image": "no-name"}]}}
    world.put_queue(agents=[{"name": "a", "handler": "m:agent", "podTemplate": template}])
    await world.run()
    assert world.condition("Ready") == ("False", "InvalidSpec")


async def test_a_deleted_agent_queue_is_not_reconciled(world: FakeWorld) -> None:
    assert await world.run() is None
    world.put_queue()
    world.cluster.queues[REF]["metadata"]["deletionTimestamp"] = "now"
    assert await world.run() is None
    assert world.cluster.calls == []


async def test_rejections_and_watch_problems_are_reported(world: FakeWorld) -> None:
    world.put_queue()
    world.redis_up()
    world.cluster.watch_errors = ["pods: forbidden"]
    world.cluster.refuse["apply", "Deployment"] = refused(403, "exceeded quota: few", "Forbidden")
    await world.run()
    assert world.condition("Ready") == ("False", "QuotaExceeded")
    (warning,) = [one for one in world.status["conditions"] if one["type"] == "ConfigurationWarning"]
    assert "pods: forbidden" in warning["message"]


async def test_redis_with_a_problem_and_another_address(world: FakeWorld) -> None:
    world.put_queue(redis={"external": {"urlSecretRef": {"name": "u"}}})
    world.put_pod("a-1", component="worker", agent="a")
    world.put_secret("u", url="redis://one:6379")
    world.redis.problem = Problem(Reason.REDIS_UNREACHABLE, "no answer")
    assert await world.run() is None
    assert world.condition("RedisReady") == ("False", "RedisUnreachable")
    assert world.scaler.released == 0
    world.redis.problem = None
    world.put_secret("u", url="rediss://two:6380/1")
    await world.run(61)
    assert [options.url for options in world.redis.acquired] == ["redis://one:6379", "rediss://two:6380/1"]
    assert world.redis.closed == 1
    assert world.status["redis"] == {"endpoint": "two:6380", "secretName": "u"}
    assert world.condition("Ready") == ("True", "Available")
    assert world.scaler.released == 1


async def test_leases_of_dead_workers_are_released_and_a_failure_stops_nothing(world: FakeWorld) -> None:
    world.put_queue()
    world.redis_up()
    world.scaler.dead = ["a-1"]
    await world.run()
    world.scaler.error = QueueUnavailable("gone")
    await world.run()
    assert world.scaler.released == 2
    assert world.condition("Ready") == ("True", "Available")


async def test_scaling_is_carried_out_and_reported(world: FakeWorld) -> None:
    world.put_queue()
    world.redis_up()
    world.scaler.last = LastScale.model_validate({"time": MADE, "from": 0, "to": 1, "reason": "Backlog"})
    world.scaler.requeue_after_s = 0.5
    assert await world.run() == 0.5
    assert ("Scaled", False) in world.cluster.events
    world.scaler.last, world.scaler.replicas = None, {"a": 4}
    await world.run()
    assert world.cluster.objects["Deployment", WORKER]["spec"]["replicas"] == 4
    (agent,) = world.status["agents"]
    assert (agent["desiredReplicas"], agent["lastScale"]["to"]) == (4, 1)  # the status keeps the last one
    assert world.scaler.seen["a"].deployment is not None


async def test_a_scale_in_that_waits_for_busy_workers_is_reported(world: FakeWorld) -> None:
    world.put_queue()
    world.redis_up()
    for number in range(2, 5):
        world.put_pod(f"a-{number}", component="worker", agent="a")
    world.scaler.replicas, world.scaler.wanted = {"a": 4}, 1
    await world.run()
    await world.run()
    (agent,) = world.status["agents"]
    assert (agent["desiredReplicas"], agent["readyReplicas"]) == (1, 4)
    assert world.condition("Progressing") == ("True", "Scaling")
    world.cluster.calls.clear()
    for _ in range(10):
        await world.run()
    assert world.cluster.writes() == []


async def test_a_queue_whose_last_worker_still_runs_is_not_listened_to(world: FakeWorld) -> None:
    world.put_queue(agents=[{"name": "a", "handler": "m:agent"}])
    world.redis_up()
    world.scaler.wanted = 0
    await world.run()
    await asyncio.sleep(0.1)
    assert world.redis.queues.listened == []  # it takes the wake-up that the worker may wait for


async def test_a_change_of_a_user_s_secret_rolls_the_pods(world: FakeWorld) -> None:
    env = [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "k"}}}]
    world.put_queue(agents=[{"name": "a", "handler": "m:agent", "env": env, "scaling": {"minReplicas": 1}}])
    world.put_pod("redis-0", component="redis", since=MADE - timedelta(minutes=5))
    world.put_pod("a-1", component="worker", agent="a", ready=False)
    await world.run()
    assert world.condition("Ready") == ("False", "ReferenceMissing")
    world.put_secret("mine", k="1")
    await world.run(10)
    first = world.cluster.objects["Deployment", WORKER]["spec"]["template"]
    world.put_secret("mine", k="2")
    await world.run(10)
    assert world.cluster.objects["Deployment", WORKER]["spec"]["template"] == first  # not looked at yet
    await world.run(60)
    assert world.cluster.objects["Deployment", WORKER]["spec"]["template"] != first


async def test_without_the_right_to_read_secrets_none_is_read(world: FakeWorld) -> None:
    env = [{"name": "K", "valueFrom": {"secretKeyRef": {"name": "mine", "key": "k"}}}]
    world.put_queue(agents=[{"name": "a", "handler": "m:agent", "env": env}])
    world.set_up(read_secrets=False)
    await world.run()
    assert ("get", "Secret", "mine") not in world.cluster.calls


async def test_a_reused_volume_is_reported_for_an_hour(world: FakeWorld) -> None:
    metadata = {"name": f"data-{REDIS}-0", "creationTimestamp": "2025-01-01T00:00:00Z"}
    world.cluster.put({"kind": "PersistentVolumeClaim", "metadata": metadata})
    world.put_queue()
    world.redis_up()
    await world.run()
    await world.run()
    assert world.condition("ConfigurationWarning") == ("True", "VolumeReused")
    assert world.condition("Ready") == ("True", "Available")
    await world.run(3700)
    assert world.condition("ConfigurationWarning") == ("False", "NoWarnings")


@pytest.mark.parametrize(
    ("scaling", "said"),
    [
        pytest.param(
            {"fallback": {"behavior": "Static", "replicas": 50}},
            "a: fallback.replicas of 50 is more than the 10 pods of maxReplicas.",
            id="fallback",
        ),
        pytest.param(
            {"maxReplicas": 2, "minIdleSlots": 11},
            "a: minIdleSlots of 11 is more than the 10 slots of maxReplicas.",
            id="idle-slots",
        ),
        pytest.param(
            {"minIdleSlots": 50, "fallback": {"behavior": "Static", "replicas": 10}}, "No warnings.", id="fits"
        ),
        pytest.param({"mode": "Fixed", "replicas": 50}, "No warnings.", id="fixed"),
    ],
)
async def test_settings_beyond_max_replicas_are_reported(world: FakeWorld, scaling: Object, said: str) -> None:
    world.put_queue(agents=[{"name": "a", "handler": "m:agent", "scaling": scaling}])
    world.redis_up()
    await world.run()
    (warning,) = [one for one in world.status["conditions"] if one["type"] == "ConfigurationWarning"]
    assert warning["message"].removesuffix(f" {Reason.OVER_MAX_REPLICAS.remedy}") == said


async def test_another_autoscaler_of_a_queue_is_reported(world: FakeWorld) -> None:
    world.put_queue()
    world.redis_up()
    world.scaler.shared_with = "the AgentQueue shop/b"
    await world.run()
    await world.run()
    assert world.condition("ConfigurationWarning") == ("True", "QueueShared")
    (said,) = [one["message"] for one in world.status["conditions"] if one["type"] == "ConfigurationWarning"]
    assert said.startswith("a: its queue a is also scaled by the AgentQueue shop/b.")
    assert world.condition("Ready") == ("True", "Available")


async def test_changes_by_others_to_the_objects_are_reported(world: FakeWorld) -> None:
    world.put_queue()
    world.redis_up()
    await world.run()
    del world.cluster.objects["Service", REDIS]
    live = world.cluster.objects["Deployment", WORKER]
    added = {"manager": "kubectl-edit", "operation": "Update", "fieldsV1": {"f:spec": {"f:minReadySeconds": {}}}}
    live["metadata"]["managedFields"].append(added)
    live["metadata"]["resourceVersion"] = "later"
    await world.run()
    assert ("DriftUndone", True) in world.cluster.events
    await world.run()
    assert world.condition("ConfigurationWarning") == ("True", "Drift")
    assert ("Drift", True) in world.cluster.events


async def test_pods_that_can_t_be_annotated_are_reported(world: FakeWorld) -> None:
    world.put_queue()
    world.redis_up()
    world.scaler.error_text = "pods is forbidden"
    await world.run()
    assert world.condition("ConfigurationWarning") == ("True", "Forbidden")


async def test_the_first_job_of_a_queue_at_zero_wakes_the_loop(world: FakeWorld) -> None:
    world.put_queue(agents=[{"name": "a", "handler": "m:agent"}])
    world.redis_up()
    world.scaler.replicas = {"a": 0}
    world.redis.queues.error = QueueUnavailable("for a moment")
    await world.run()
    world.redis.queues.came.set()
    async with asyncio.timeout(10):
        await world.hurried.wait()
    assert world.woken == [REF]
    assert world.redis.queues.listened[-1] == ("a",)
    world.redis.queues.error = RuntimeError("a bug")
    world.redis.queues.came.set()
    await asyncio.sleep(0.5)
    await world.run()  # the listener is replaced
    world.hurried.clear()
    world.redis.queues.came.set()
    async with asyncio.timeout(10):
        await world.hurried.wait()
    world.scaler.replicas = {"a": 1}
    await world.run()
    world.redis.queues.listened.clear()
    world.redis.queues.came.set()
    await asyncio.sleep(0.5)
    assert world.redis.queues.listened == []  # workers hear for themselves


NIGHTLY: Object = {"name": "nightly", "cron": "0 3 * * *", "job": "report"}


def scheduled(*schedules: Object, queue: str | None = None) -> Object:
    """Return an agent with these schedules."""
    given = {"name": "a", "handler": "m:agent", "scaling": {"minReplicas": 1}, "schedules": list(schedules)}
    return given if queue is None else {**given, "queueName": queue}


def schedules_in(world: FakeWorld) -> Mapping[str, list[str]]:
    """Return the names of the schedules in Redis, by queue."""
    return {queue: [one.name for one in found] for queue, found in world.redis.queues.schedules.items()}


async def test_schedules_are_written_again_in_each_pass_and_removed_once(world: FakeWorld) -> None:
    world.put_queue(agents=[scheduled(NIGHTLY)])
    world.redis_up()
    await world.run()
    world.redis.queues.schedules.clear()  # another server has taken its place
    await world.run()
    assert schedules_in(world) == {"a": ["nightly"]}
    world.put_queue(agents=[scheduled()], generation=2)
    for _ in range(3):
        await world.run()
    assert schedules_in(world) == {"a": []}
    assert world.redis.queues.puts == ["a", "a", "a"]


async def test_schedules_of_a_removed_agent_and_of_a_renamed_queue_are_removed(world: FakeWorld) -> None:
    other = {"name": "b", "handler": "m:agent", "schedules": [NIGHTLY]}
    world.put_queue(agents=[scheduled(NIGHTLY, queue="old"), other])
    world.redis_up()
    await world.run()
    assert schedules_in(world) == {"old": ["nightly"], "b": ["nightly"]}
    world.set_up()  # the operator is replaced, and knows the queues by the status alone
    world.cluster.queues[REF]["status"] = world.status
    spec_before = world.cluster.queues[REF]["status"]
    world.put_queue(agents=[scheduled(NIGHTLY, queue="new")], generation=2)
    world.cluster.queues[REF]["status"] = spec_before
    await world.run()
    assert schedules_in(world) == {"old": [], "b": [], "new": ["nightly"]}


async def test_schedules_wait_for_redis(world: FakeWorld) -> None:
    world.put_queue(agents=[scheduled(NIGHTLY)])
    world.redis_up()
    world.redis.queues.down = True
    await world.run()
    assert world.redis.queues.schedules == {}
    world.redis.queues.down = False
    await world.run()
    assert schedules_in(world) == {"a": ["nightly"]}


@pytest.mark.parametrize(
    ("leads", "external", "left"), [(True, True, []), (False, True, ["nightly"]), (True, False, ["nightly"])]
)
async def test_schedules_of_a_deleted_agent_queue_leave_an_external_redis(
    world: FakeWorld, leads: bool, external: bool, left: list[str]
) -> None:
    world.set_up(leads=lambda: leads)
    world.put_secret("url", url="redis://r:6379/0")
    redis = {"external": {"urlSecretRef": {"name": "url"}}} if external else {"managed": {}}
    world.put_queue(agents=[scheduled(NIGHTLY)], redis=redis)
    world.redis_up()
    await world.run()
    assert schedules_in(world) == {"a": ["nightly"]}
    del world.cluster.queues[REF]
    await world.reconciler.close()
    assert schedules_in(world) == {"a": left}


async def test_an_operator_that_ends_leaves_the_schedules(world: FakeWorld) -> None:
    world.put_secret("url", url="redis://r:6379/0")
    world.put_queue(agents=[scheduled(NIGHTLY)], redis={"external": {"urlSecretRef": {"name": "url"}}})
    await world.run()
    await world.reconciler.close()
    assert schedules_in(world) == {"a": ["nightly"]}


async def test_a_schedule_that_never_comes_is_reported(world: FakeWorld) -> None:
    """The API server's pattern accepts a day that no month has."""
    world.put_queue(agents=[scheduled(NIGHTLY | {"cron": "0 0 30 2 *"})])
    await world.run()
    assert world.condition("Ready") == ("False", "InvalidSpec")
    assert "'0 0 30 2 *' is not a cron expression that ever comes" in world.status["conditions"][0]["message"]
