"""Tests of the scaler with one agent: its decisions, drain marks, annotations and replicas."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from agentqueue_operator.autoscaling.decision_record import decode
from agentqueue_operator.autoscaling.model import Load, ScalingReason
from agentqueue_operator.autoscaling.queue_metrics import WorkerHeartbeat
from agentqueue_operator.controller.ports import AgentPods, ApiRefused, NotLeading, Scaled
from agentqueue_operator.controller.scaling.scale_in import SETTLE_S
from agentqueue_operator.controller.scaling.scaler import ANSWER_POLL_S, MARKS_KEPT_S, QueueScaler
from agentqueue_operator.controller.scaling.worker_pods import COST
from tests.support.scaling import FakeCluster, FakeQueues, pod, queue_of

NOW = datetime(2026, 11, 25, tzinfo=UTC)
IDLE = WorkerHeartbeat(busy=0, slots=1, draining=False)
BUSY = WorkerHeartbeat(busy=1, slots=1, draining=False)


class ScalerTestBed:
    """A scaler with its fake cluster and queues."""

    def __init__(self, *pods: Any, current: int | None = None, at: float = 1000.0, **scaling: Any) -> None:
        self.cluster = FakeCluster(len(pods) if current is None else current, *pods)
        self.queues = FakeQueues(heartbeats=dict.fromkeys(self.cluster.pods, IDLE))
        self.queue = queue_of(**scaling)
        self.at = at
        self.decisions: list[ScalingReason] = []
        self.restart()

    def restart(self) -> None:
        """Restart the operator, which loses its memory."""
        self.scaler = QueueScaler(
            self.cluster,
            on_decision=lambda _, decision: self.decisions.append(decision.reason),
            now=lambda: NOW,
        )

    async def run_pass(
        self, *, after: float = 5.0, agents: Mapping[str, AgentPods] | None = None, has_redis: bool = True
    ) -> Scaled:
        """Run one reconcile `after` seconds later. Nothing is applied."""
        self.at += after
        given = self.cluster.agents if agents is None else agents
        queues = self.queues if has_redis else None
        scaled = await self.scaler.scale(self.queue, given, queues=queues, at=self.at)
        return scaled["work"]

    async def settled(self) -> Scaled:
        """Run reconciles until the rates are known and a scale-in may start."""
        for _ in range(14):
            scaled = await self.run_pass()
        return scaled


@pytest.fixture
def two_idle() -> ScalerTestBed:
    """Return a test bed with two idle pods, of which one is wanted."""
    return ScalerTestBed(pod("a"), pod("b"), minReplicas=1)


async def test_an_operator_that_starts_anew_knows_how_many_pods_were_just_added() -> None:
    bed = ScalerTestBed(pod("a", ready=False), pod("b", ready=False), maxReplicas=9, maxPodsPerMinute=2)
    for one in bed.cluster.pods.values():
        one["metadata"]["creationTimestamp"] = "2026-11-24T23:59:50Z"
    bed.queues.load = Load(ready=50)
    assert (await bed.run_pass()).replicas == 2
    bed.restart()
    assert (await bed.run_pass()).replicas == 2
    assert bed.decisions == [ScalingReason.MAX_PODS_PER_MINUTE] * 2


async def test_up_at_once() -> None:
    bed = ScalerTestBed(current=0, maxReplicas=5)
    bed.queues.load = Load(ready=50)
    scaled = await bed.run_pass()
    assert (scaled.replicas, scaled.requeue_after_s) == (5, None)
    assert scaled.last_scale is not None
    assert scaled.last_scale.model_dump(by_alias=True) == {"time": NOW, "from": 0, "to": 5, "reason": "MaxReplicas"}
    assert bed.decisions == [ScalingReason.MAX]


async def test_a_deployment_that_is_not_there_yet_counts_as_zero() -> None:
    bed = ScalerTestBed(minReplicas=2)
    scaled = await bed.run_pass(agents={"work": AgentPods(deployment=None)})
    assert scaled.replicas == 2


async def test_nothing_goes_in_the_first_minute_after_a_start(two_idle: ScalerTestBed) -> None:
    scaled = await two_idle.run_pass()
    assert scaled.replicas == 2
    assert two_idle.decisions == [ScalingReason.LEARNING]
    assert two_idle.queues.marks == []


async def test_the_handshake_step_by_step(two_idle: ScalerTestBed) -> None:
    bed, cluster, queues = two_idle, two_idle.cluster, two_idle.queues
    marked = await bed.settled()
    assert marked.replicas == 2
    assert set(queues.marked) == {"a"}
    assert cluster.costs() == set()
    queues.heartbeats["a"] = WorkerHeartbeat(busy=0, slots=1, draining=True, mark=queues.marked["a"] - 1)
    waits_for_the_answer = await bed.run_pass(after=0.1)
    assert (waits_for_the_answer.replicas, waits_for_the_answer.draining) == (2, 1)
    assert waits_for_the_answer.requeue_after_s == ANSWER_POLL_S
    assert cluster.costs() == set()  # it has confirmed an earlier mark
    queues.confirm("a")
    cluster.lags = True
    annotated = await bed.run_pass(after=1.0)
    assert (annotated.replicas, annotated.requeue_after_s) == (2, SETTLE_S)
    assert cluster.costs() == {"a"}
    waits_for_the_controller = await bed.run_pass(after=1.0)
    assert (waits_for_the_controller.replicas, waits_for_the_controller.requeue_after_s) == (2, SETTLE_S)
    cluster.lags = False
    lowered = await bed.run_pass(after=1.0)
    assert lowered.replicas == 1
    assert lowered.lowered_on == cluster.deployment
    assert lowered.last_scale is not None
    assert (lowered.last_scale.from_, lowered.last_scale.to, lowered.last_scale.reason) == (2, 1, "LessWork")
    assert cluster.lower(1) == ["a"]
    after = await bed.run_pass()
    assert (after.replicas, after.draining, after.last_scale, after.lowered_on) == (1, 0, None, None)


async def test_a_worker_that_works_again_is_unmarked_only_after_its_cost_is_gone(two_idle: ScalerTestBed) -> None:
    await two_idle.settled()
    two_idle.queues.confirm("a")
    await two_idle.run_pass()
    assert two_idle.cluster.costs() == {"a"}
    two_idle.queue = queue_of(minReplicas=2)
    two_idle.cluster.refuses = ApiRefused(409, "Conflict", "the pod has changed")
    assert (await two_idle.run_pass()).requeue_after_s == SETTLE_S
    assert set(two_idle.queues.marked) == two_idle.cluster.costs() == {"a"}
    two_idle.cluster.refuses = None
    await two_idle.run_pass()
    assert set(two_idle.queues.marked) == two_idle.cluster.costs() == set()


async def test_a_mark_stays_while_a_pod_may_still_be_removed(two_idle: ScalerTestBed) -> None:
    await two_idle.settled()
    two_idle.queues.confirm("a")
    await two_idle.run_pass()
    two_idle.queue = queue_of(minReplicas=2)
    two_idle.cluster.lags = True  # the ReplicaSet chooses by what it saw before
    await two_idle.run_pass()
    assert set(two_idle.queues.marked) == two_idle.cluster.costs() == {"a"}


async def test_a_mark_is_taken_back_only_by_a_replica_that_leads_still(two_idle: ScalerTestBed) -> None:
    await two_idle.settled()
    two_idle.queue = queue_of(minReplicas=2)
    two_idle.cluster.leads = False  # it was frozen in the pass, and the next leader relies on the mark
    with pytest.raises(NotLeading):
        await two_idle.run_pass()
    assert set(two_idle.queues.marked) == {"a"}
    two_idle.cluster.leads = True
    await two_idle.run_pass()
    assert two_idle.queues.marked == {}


async def test_costs_that_others_set_are_restored(two_idle: ScalerTestBed) -> None:
    two_idle.cluster.pods["a"]["metadata"]["annotations"] = {COST: "7"}
    await two_idle.settled()
    two_idle.queues.confirm("a")
    await two_idle.run_pass()
    assert two_idle.cluster.costs() == {"a"}
    two_idle.queue = queue_of(minReplicas=2)
    await two_idle.run_pass()
    assert two_idle.cluster.pods["a"]["metadata"]["annotations"] == {COST: "7"}


async def test_a_quota_that_keeps_pods_away_does_not_keep_the_number_up() -> None:
    bed = ScalerTestBed(pod("a"), current=3, mode="Fixed", replicas=1)
    assert (await bed.run_pass()).replicas == 3  # they may be about to come
    bed.cluster.is_stuck = True
    assert (await bed.run_pass()).replicas == 1


async def test_a_burst_takes_marks_and_annotations_back(two_idle: ScalerTestBed) -> None:
    await two_idle.settled()
    assert set(two_idle.queues.marked) == {"a"}
    two_idle.queues.load = Load(ready=5, active=0)
    scaled = await two_idle.run_pass()
    assert scaled.replicas is not None
    assert scaled.replicas > 2
    assert set(two_idle.queues.marked) == two_idle.cluster.costs() == set()


async def test_a_busy_worker_stays_while_an_idle_one_goes() -> None:
    bed = ScalerTestBed(pod("a"), pod("b"), minReplicas=1)
    bed.queues.heartbeats["a"] = BUSY
    bed.queues.load = Load(active=1)
    await bed.settled()
    assert set(bed.queues.marked) == {"b"}


async def test_a_restart_in_the_middle_loses_nothing(two_idle: ScalerTestBed) -> None:
    await two_idle.settled()
    two_idle.restart()
    first = await two_idle.run_pass()
    assert (first.replicas, two_idle.decisions[-1]) == (2, ScalingReason.LEARNING)
    assert set(two_idle.queues.marked) == set()  # not due by what is known now
    await two_idle.settled()
    two_idle.queues.confirm("a")
    await two_idle.run_pass()
    assert (await two_idle.run_pass()).replicas == 1


async def test_replicas_hold_while_redis_is_down(two_idle: ScalerTestBed) -> None:
    await two_idle.settled()
    two_idle.queues.down = True
    for _ in range(20):
        scaled = await two_idle.run_pass()
        assert (scaled.replicas, scaled.metrics) == (2, None)
    assert two_idle.decisions[-1] is ScalingReason.FALLBACK_HOLD
    two_idle.queues.down = False
    assert (await two_idle.run_pass()).replicas == 2


@pytest.mark.parametrize(
    ("fallback", "expected"),
    [
        pytest.param({"behavior": "Hold"}, 1, id="hold"),
        pytest.param({"behavior": "Static", "replicas": 4}, 4, id="static"),
        pytest.param({"behavior": "Max"}, 6, id="max"),
    ],
)
async def test_the_fallback_comes_after_as_many_periods_not_passes(fallback: dict[str, Any], expected: int) -> None:
    bed = ScalerTestBed(pod("a"), minReplicas=1, maxReplicas=6, fallback=fallback)
    await bed.run_pass()
    bed.queues.down = True
    for _ in range(20):  # events wake the loop
        assert (await bed.run_pass(after=0.2)).replicas == 1
    for _ in range(3):
        scaled = await bed.run_pass()
    assert scaled.replicas == expected


async def test_a_redis_that_is_not_there_yet_is_no_failure() -> None:
    bed = ScalerTestBed(fallback={"behavior": "Max"})
    for _ in range(10):
        assert (await bed.run_pass(has_redis=False)).replicas == 0
    assert bed.decisions[-1] is ScalingReason.METRICS_MISSING
    assert bed.queues.published == {}


async def test_external_leaves_the_number_alone_and_takes_its_marks_back(two_idle: ScalerTestBed) -> None:
    await two_idle.settled()
    assert two_idle.queues.marked
    two_idle.queue = queue_of(mode="External")
    scaled = await two_idle.run_pass()
    assert (scaled.replicas, scaled.last_scale) == (None, None)
    assert set(two_idle.queues.marked) == two_idle.cluster.costs() == set()


async def test_external_costs_that_others_set_are_theirs() -> None:
    bed = ScalerTestBed(pod("a"), mode="External")
    bed.cluster.pods["a"]["metadata"]["annotations"] = {"controller.kubernetes.io/pod-deletion-cost": "5"}
    await bed.run_pass()
    assert bed.cluster.patches == []


async def test_external_and_suspended_workers_only_claim_no_more() -> None:
    bed = ScalerTestBed(pod("a"), pod("b"), mode="External", suspend=True)
    scaled = await bed.run_pass()
    assert scaled.replicas is None
    assert set(bed.queues.marked) == {"a", "b"}
    assert bed.cluster.costs() == set()


async def test_marks_are_kept_as_long_as_somebody_scales_but_those_of_a_suspended_queue_stay(
    two_idle: ScalerTestBed,
) -> None:
    await two_idle.settled()
    assert two_idle.queues.kept_s == MARKS_KEPT_S
    two_idle.queues.kept_s = 0.0
    await two_idle.run_pass()
    assert two_idle.queues.marked
    assert two_idle.queues.kept_s == MARKS_KEPT_S
    two_idle.queue = queue_of(suspend=True)
    await two_idle.run_pass()
    assert two_idle.queues.kept_s is None


async def test_suspend_waits_for_the_jobs_that_run() -> None:
    bed = ScalerTestBed(pod("a"), pod("b"), suspend=True)
    bed.queues.heartbeats["b"] = BUSY
    bed.queues.load = Load(ready=7, active=1)
    assert (await bed.run_pass()).replicas == 2
    assert set(bed.queues.marked) == {"a", "b"}
    bed.queues.confirm("a")
    await bed.run_pass()
    assert (await bed.run_pass()).replicas == 1
    assert bed.cluster.lower(1) == ["a"]
    bed.queues.confirm("b", busy=1)
    assert (await bed.run_pass(after=3600.0)).replicas == 1
    bed.queues.confirm("b")
    await bed.run_pass()
    assert (await bed.run_pass()).replicas == 0


async def test_a_fixed_number_goes_down_by_the_same_handshake() -> None:
    bed = ScalerTestBed(pod("a"), pod("b"), mode="Fixed", replicas=1)
    assert (await bed.run_pass()).replicas == 2
    bed.queues.confirm("a")
    await bed.run_pass()
    assert (await bed.run_pass()).replicas == 1


async def test_unschedulable_pods_stop_more_from_coming() -> None:
    refused = pod("b", ready=False, phase="Pending")
    refused["spec"] = {}
    refused["status"]["conditions"] = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable"}]
    bed = ScalerTestBed(pod("a"), refused)
    bed.queues.load = Load(ready=50)
    scaled = await bed.run_pass()
    assert (scaled.replicas, scaled.unschedulable) == (2, 1)
    assert bed.decisions == [ScalingReason.UNSCHEDULABLE]


async def test_pods_that_crash_at_their_start_stop_more_from_coming() -> None:
    waiting = {"name": "worker", "restartCount": 3, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    bed = ScalerTestBed(pod("a", ready=False, containerStatuses=[waiting]))
    bed.queues.load = Load(ready=50)
    assert (await bed.run_pass()).replicas == 1
    assert bed.decisions == [ScalingReason.PODS_FAILING]


async def test_nothing_goes_in_a_rollout_and_marks_are_taken_back(two_idle: ScalerTestBed) -> None:
    await two_idle.settled()
    assert set(two_idle.queues.marked) == {"a"}
    two_idle.cluster.pods["c"] = pod("c", template="t2", ready=False)
    scaled = await two_idle.run_pass()
    assert (scaled.replicas, two_idle.decisions[-1]) == (2, ScalingReason.ROLLOUT)
    assert set(two_idle.queues.marked) == two_idle.cluster.costs() == set()


async def test_a_status_older_than_the_last_change_is_waited_for(two_idle: ScalerTestBed) -> None:
    await two_idle.settled()
    two_idle.queues.confirm("a")
    await two_idle.run_pass()
    two_idle.cluster.generation = 2
    scaled = await two_idle.run_pass()
    assert (scaled.replicas, scaled.requeue_after_s) == (2, SETTLE_S)
    assert set(two_idle.queues.marked) == {"a"}  # nor is anything taken back
    two_idle.cluster.observed = 2
    assert (await two_idle.run_pass()).replicas == 1


async def test_what_can_not_be_annotated_stays_and_says_why(two_idle: ScalerTestBed) -> None:
    two_idle.cluster.refuses = ApiRefused(403, "Forbidden", "pods is forbidden")
    scaled = await two_idle.settled()
    two_idle.queues.confirm("a")
    scaled = await two_idle.run_pass()
    assert scaled.replicas == 2
    assert "pods is forbidden" in scaled.error


async def test_a_pod_that_is_gone_meanwhile_is_no_trouble(two_idle: ScalerTestBed) -> None:
    two_idle.cluster.refuses = ApiRefused(404, "NotFound", "no pod")
    assert (await two_idle.settled()).error == ""


async def test_marks_that_redis_does_not_take_are_planned_anew(two_idle: ScalerTestBed) -> None:
    two_idle.queues.takes_marks = False
    assert (await two_idle.settled()).error == ""
    assert two_idle.cluster.costs() == set()
    two_idle.queues.takes_marks = True
    await two_idle.run_pass()
    assert set(two_idle.queues.marked) == {"a"}


async def test_who_does_not_lead_does_nothing(two_idle: ScalerTestBed) -> None:
    two_idle.cluster.refuses = NotLeading()
    await two_idle.settled()
    two_idle.queues.confirm("a")
    with pytest.raises(NotLeading):
        await two_idle.run_pass()


async def test_marks_of_pods_that_are_gone_without_a_word_are_taken_back() -> None:
    bed = ScalerTestBed(pod("a"), minReplicas=1)
    bed.queues.marked = {"demo-work-12345-t1-never": 1, "somebody-else": 2}
    await bed.run_pass()
    assert set(bed.queues.marked) == {"somebody-else"}


async def test_ending_pods_count_as_draining_and_as_nothing_else() -> None:
    ending = pod("b")
    ending["metadata"]["deletionTimestamp"] = "2026-11-25T02:05:00Z"
    evicted = pod("c", phase="Failed")
    bed = ScalerTestBed(pod("a"), ending, evicted, current=1, minReplicas=1)
    scaled = await bed.run_pass()
    assert (scaled.replicas, scaled.draining) == (1, 1)
    assert scaled.decision is not None
    assert scaled.decision.terms.snapshot.pods.ready == 1


async def test_starts_are_learned_once_per_pod() -> None:
    bed = ScalerTestBed(pod("a"), pod("b"))
    for _ in range(3):
        scaled = await bed.run_pass()
    assert scaled.decision is not None
    assert scaled.decision.terms.snapshot.rates.startup == timedelta(seconds=4)


async def test_running_jobs_tell_by_their_age_that_jobs_are_long() -> None:
    bed = ScalerTestBed(pod("a"), maxReplicas=1)
    bed.queues.load = Load(active=1)
    bed.queues.heartbeats["a"] = WorkerHeartbeat(busy=1, slots=1, draining=False, running_s=300.0)
    scaled = await bed.run_pass()
    assert scaled.decision is not None
    assert scaled.decision.terms.snapshot.rates.service == timedelta(seconds=300)


async def test_each_decision_is_published_with_the_last_change() -> None:
    bed = ScalerTestBed(current=0, maxReplicas=3)
    bed.queues.load = Load(ready=9)
    await bed.run_pass()
    published = decode(bed.queues.published["work"])
    assert (published.by, published.decision.reason, published.change) == ("operator", ScalingReason.MAX, None)
    bed.cluster.replicas = 3
    await bed.run_pass()
    change = decode(bed.queues.published["work"]).change
    assert change is not None
    assert (change.before, change.after, change.reason) == (0, 3, ScalingReason.MAX)


# --- pods that are not heard any more


async def test_a_pod_that_was_heard_and_is_silent_is_no_capacity_nor_when_its_node_is_given_up() -> None:
    bed = ScalerTestBed(pod("a"), minReplicas=0)
    bed.queues.load = Load(active=1)
    await bed.settled()
    bed.queues.heartbeats.clear()  # its node has lost power
    bed.queues.load = Load(stalled=1)
    assert (await bed.run_pass()).replicas == 2
    bed.cluster.pods["a"]["status"]["conditions"][0]["status"] = "False"
    bed.cluster.replicas = 2
    assert (await bed.run_pass()).replicas == 2
    bed.queues.heartbeats["a"] = BUSY
    bed.queues.load = Load(active=1)
    assert bed.decisions[-1] is ScalingReason.BACKLOG
    await bed.run_pass()
    assert bed.scaler._agents["work"].observer.memory.keep_history[-1].pods == 1


async def test_a_container_that_starts_again_is_awaited_as_any_start() -> None:
    bed = ScalerTestBed(pod("a"), minReplicas=0)
    bed.queues.load = Load(active=1)
    await bed.settled()
    bed.queues.heartbeats.clear()
    bed.queues.load = Load(stalled=1)
    status = bed.cluster.pods["a"]["status"]
    status["conditions"][0]["status"] = "False"
    status["containerStatuses"] = [{"name": "worker", "restartCount": 1, "state": {"waiting": {}}}]
    assert (await bed.run_pass()).replicas == 1
    status["containerStatuses"] = [{"name": "worker", "restartCount": 1, "state": {"running": {}}}]
    assert (await bed.run_pass()).replicas == 1


async def test_after_an_outage_of_redis_workers_get_time_to_be_heard_again() -> None:
    bed = ScalerTestBed(pod("a"), minReplicas=1)
    await bed.settled()
    bed.queues.down = True
    for _ in range(6):
        await bed.run_pass()
    bed.queues.down = False
    bed.queues.heartbeats.clear()
    bed.queues.load = Load(stalled=1)
    assert (await bed.run_pass()).replicas == 1
    assert (await bed.run_pass()).replicas == 1
    assert (await bed.run_pass()).replicas == 2  # it had 10 s


async def test_a_ready_pod_that_was_never_heard_is_awaited_as_long() -> None:
    bed = ScalerTestBed(pod("a"), minReplicas=1)
    bed.queues.heartbeats.clear()
    assert [(await bed.run_pass()).replicas for _ in range(3)] == [1, 1, 2]
    bed = ScalerTestBed(pod("a", ready=False), minReplicas=1)
    bed.queues.heartbeats.clear()
    assert [(await bed.run_pass()).replicas for _ in range(3)] == [1, 1, 1]


async def test_a_restarted_operator_knows_a_lost_nodes_pod_from_one_that_starts() -> None:
    bed = ScalerTestBed(pod("a", ready=False), minReplicas=1)
    bed.queues.heartbeats.clear()
    (container,) = bed.cluster.pods["a"]["status"]["containerStatuses"]
    container |= {"started": True, "state": {"running": {"startedAt": "2026-11-25T02:00:01Z"}}}
    assert [(await bed.run_pass()).replicas for _ in range(3)] == [1, 1, 2]
    bed.restart()
    bed.cluster.pods["a"]["status"]["conditions"][0]["lastTransitionTime"] = "2026-11-25T02:00:00Z"  # never Ready
    assert [(await bed.run_pass()).replicas for _ in range(3)] == [1, 1, 1]
