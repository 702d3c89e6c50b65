"""Tests of registrations: one pod of each new version runs until it has registered, and a rollback needs none."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from agentqueue.errors import QueueUnavailable
from agentqueue.model.template import KeptTemplate
from agentqueue_operator.autoscaling.model import ScalingReason
from agentqueue_operator.autoscaling.queue_metrics import WorkerHeartbeat
from agentqueue_operator.controller.ports import ApiRefused, ApiUnavailable, NotLeading, Scaled
from agentqueue_operator.controller.scaling import registrations
from agentqueue_operator.controller.scaling.scaler import QueueScaler
from agentqueue_operator.controller.scaling.worker_pods import template_of
from tests.support.scaling import FakeCluster, FakeQueues, pod, queue_of

NOW = datetime(2026, 11, 25, tzinfo=UTC)
SILENT_RELEASE = WorkerHeartbeat(busy=0, slots=1, draining=False)


class Bed:
    """A scaler over one agent whose versions are `t1`, `t2`, …, and whose code has the fingerprint `code`."""

    def __init__(self, *, current: int = 0, **scaling: Any) -> None:
        self.cluster = FakeCluster(current)
        self.queues = FakeQueues(templates={}, registered="")
        self.queue = queue_of(**scaling)
        self.at = 1000.0
        self.reasons: list[ScalingReason] = []
        self.scaler = QueueScaler(
            self.cluster, on_decision=lambda _, decision: self.reasons.append(decision.reason), now=lambda: NOW
        )

    async def run_pass(self) -> Scaled:
        self.at += 5
        scaled = await self.scaler.scale(self.queue, self.cluster.agents, queues=self.queues, at=self.at)
        result = scaled["work"]
        if result.replicas is not None:
            for name in self.cluster.lower(result.replicas):
                self.queues.heartbeats.pop(name, None)
        for name in self.queues.marked:
            self.queues.confirm(name)
        return result

    def start(self, name: str, *, fingerprint: str | None = "code", template: str | None = None) -> None:
        """Let a pod of the present version become Ready and send a heartbeat. It has registered before."""
        self.cluster.pods[name] = pod(name, template=template or self.cluster.template)
        self.cluster.replicas = max(self.cluster.replicas, len(self.cluster.pods))
        self.queues.heartbeats[name] = replace(SILENT_RELEASE, registration=fingerprint)
        if fingerprint and template is None:
            self.queues.registered = fingerprint

    def stop(self, name: str) -> None:
        del self.cluster.pods[name], self.queues.heartbeats[name]

    @property
    def kept(self) -> dict[str, str]:
        """Fingerprints that are kept for `t1` to `t3`."""
        names = {}
        for name in ("t1", "t2", "t3"):
            self.cluster.template, before = name, self.cluster.template
            names[template_of(self.cluster.deployment)] = name
            self.cluster.template = before
        return {names[digest]: kept.fingerprint for digest, kept in (self.queues.templates or {}).items()}


async def test_a_new_version_gets_one_pod_which_goes_once_it_has_registered() -> None:
    bed = Bed()
    first = await bed.run_pass()
    assert (first.replicas, first.registering, first.registered_jobs) == (1, True, None)
    assert bed.reasons == [ScalingReason.REGISTERING]
    assert (await bed.run_pass()).registering
    bed.start("w-1")
    done = await bed.run_pass()
    assert (done.registering, done.registered_jobs, bed.kept) == (False, 3, {"t1": "code"})
    for _ in range(30):
        await bed.run_pass()
    assert bed.cluster.replicas == 0
    assert ScalingReason.SCALE_TO_ZERO in bed.reasons
    later = await bed.run_pass()
    assert (later.replicas, later.registering, later.registered_jobs) == (0, False, 3)


async def test_a_rollback_registers_what_is_kept_without_a_pod() -> None:
    bed = Bed()
    bed.start("w-1")
    await bed.run_pass()
    bed.stop("w-1")
    bed.cluster.replicas, bed.cluster.template = 0, "t2"
    assert (await bed.run_pass()).replicas == 1
    bed.start("w-2", fingerprint="newer")
    await bed.run_pass()
    assert bed.kept == {"t1": "code", "t2": "newer"}
    bed.stop("w-2")
    bed.cluster.replicas, bed.cluster.template = 0, "t1"
    back = await bed.run_pass()
    assert (back.replicas, back.registering, bed.queues.restored) == (0, False, ["code"])
    await bed.run_pass()
    assert bed.queues.restored == ["code"]


async def test_pods_of_an_older_version_register_nothing_for_the_new_one() -> None:
    bed = Bed(current=1)
    bed.start("w-1")
    await bed.run_pass()
    bed.cluster.template = "t2"
    assert (await bed.run_pass()).registering
    bed.start("w-2", fingerprint="newer")
    assert not (await bed.run_pass()).registering
    assert bed.kept == {"t1": "code", "t2": "newer"}


async def test_a_worker_of_an_older_release_counts_as_registered_once_it_serves() -> None:
    bed = Bed()
    await bed.run_pass()
    bed.start("w-1", fingerprint=None)
    done = await bed.run_pass()
    assert (done.registering, done.registered_jobs, bed.kept) == (False, None, {"t1": ""})
    bed.stop("w-1")
    bed.cluster.replicas = 0
    assert (await bed.run_pass()).replicas == 0


async def test_a_pod_without_a_heartbeat_has_not_registered() -> None:
    bed = Bed()
    await bed.run_pass()
    bed.cluster.pods["w-1"] = pod("w-1", ready=False)
    assert (await bed.run_pass()).registering
    assert bed.cluster.reads == []


async def test_a_replica_set_is_read_once() -> None:
    bed = Bed(current=2)
    bed.start("w-1")
    bed.start("w-2")
    for _ in range(3):
        await bed.run_pass()
    assert bed.cluster.reads.count("demo-work-12345-t1") == 1


async def test_few_replica_sets_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registrations, "MAX_REPLICA_SETS", 1)
    bed = Bed(current=2)
    bed.start("w-1")
    bed.start("w-2", template="t0")
    for _ in range(2):
        await bed.run_pass()
    assert len(bed.cluster.reads) > 2
    assert bed.kept == {"t1": "code"}


@pytest.mark.parametrize("problem", [None, ApiUnavailable("no answer")])
async def test_while_the_replica_set_cannot_be_read_nothing_is_registered(
    monkeypatch: pytest.MonkeyPatch, problem: Exception | None
) -> None:
    bed = Bed(current=1)
    bed.start("w-1")

    async def get(*_: Any) -> None:
        if problem is not None:
            raise problem

    monkeypatch.setattr(bed.cluster, "get", get)
    assert (await bed.run_pass()).registering
    monkeypatch.undo()
    assert not (await bed.run_pass()).registering


async def test_with_the_rights_of_an_older_chart_any_worker_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    bed = Bed(current=1)
    bed.start("w-1")

    async def refuse(*_: Any) -> None:
        raise ApiRefused(403, "Forbidden", "no")

    monkeypatch.setattr(bed.cluster, "get", refuse)
    assert not (await bed.run_pass()).registering


async def test_only_the_leader_writes() -> None:
    bed = Bed()
    bed.start("w-1")
    bed.cluster.leads = False
    with pytest.raises(NotLeading):
        await bed.run_pass()
    assert bed.kept == {}
    assert bed.queues.templates is not None
    bed.queues.templates[template_of(bed.cluster.deployment)] = KeptTemplate("earlier", 0)
    bed.stop("w-1")
    with pytest.raises(NotLeading):
        await bed.run_pass()
    assert bed.queues.restored == []


async def test_without_redis_no_pod_is_requested_for_a_registration() -> None:
    bed = Bed()
    bed.queues.down = True
    assert ((await bed.run_pass()).replicas, bed.reasons) == (0, [ScalingReason.METRICS_MISSING])


async def test_what_was_known_stands_until_redis_answers_again(monkeypatch: pytest.MonkeyPatch) -> None:
    bed = Bed(current=1)
    assert (await bed.run_pass()).registering
    bed.start("w-1")

    async def read(*_: Any) -> Any:
        raise QueueUnavailable("Redis is gone in between")

    monkeypatch.setattr(bed.queues, "read_templates", read)
    assert (await bed.run_pass()).registering
    monkeypatch.undo()
    assert not (await bed.run_pass()).registering
    assert bed.kept == {"t1": "code"}


@pytest.mark.parametrize(
    ("scaling", "reason"),
    [
        ({"mode": "Fixed", "replicas": 0}, ScalingReason.FIXED),
        ({"mode": "External"}, ScalingReason.EXTERNAL),
        ({"suspend": True}, ScalingReason.SUSPENDED),
    ],
)
async def test_no_pod_runs_for_a_registration_where_others_set_the_number_or_nothing_may_run(
    scaling: dict[str, Any], reason: ScalingReason
) -> None:
    bed = Bed(**scaling)
    result = await bed.run_pass()
    assert (bed.cluster.replicas, bed.reasons, result.registering) == (0, [reason], False)


async def test_min_replicas_register_anyway() -> None:
    bed = Bed(minReplicas=2)
    result = await bed.run_pass()
    assert (result.replicas, bed.reasons, result.registering) == (2, [ScalingReason.MIN], True)


async def test_an_agent_without_a_deployment_waits_for_it() -> None:
    bed = Bed()
    scaled = await bed.scaler.scale(bed.queue, {}, queues=bed.queues, at=bed.at)
    assert (scaled["work"].replicas, scaled["work"].registering) == (0, False)
